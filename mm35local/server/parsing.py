"""Bodies to what they ask, or to an error that names the first wrong field."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from mm35local.errors import RequestError

_UNION_MEMBERS = ("str", "int", "constrained-str")
_Model = TypeVar("_Model", bound=BaseModel)
_Item = TypeVar("_Item")
Items = Annotated[list[_Item], Field(fail_fast=True)]
"""A list whose first wrong item ends the reading: an error for each of a million would take a gigabyte."""


def parse(kind: type[_Model], body: bytes) -> _Model:
    """`body` as a `kind`. Raises RequestError naming the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        is_cut = _first(error)["type"] == "json_invalid" and b"\\ud" in body.lower()
        if not is_cut:
            raise _request_error(error) from error
    # Clients cut strings in the middle of an emoji. Half a character is no text, but no reason to fail either.
    try:
        return kind.model_validate_json(_without_half_characters(body))
    except ValidationError as error:
        raise _request_error(error) from error


def _without_half_characters(body: bytes) -> bytes:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False)[0]


def _request_error(error: ValidationError) -> RequestError:
    first = _first(error)
    if first["type"] == "json_invalid":
        return RequestError(f"the body is no valid JSON: {first['ctx']['error']}", hint="send a JSON object")
    field = ".".join(map(str, takewhile(_is_place, first["loc"]))) or None
    message = first["msg"].removeprefix("Value error, ")
    found = f", found {first['input']!r}" if _is_short(first["input"]) else ""
    return RequestError(f"{field or 'the body'}: {message}{found}", field)


def _is_place(step: int | str) -> bool:
    """Pydantic puts the member of a union into the path as if it were a field."""
    return isinstance(step, int) or not (step in _UNION_MEMBERS or "[" in step)


def _is_short(value: object) -> bool:
    return value is None or (isinstance(value, bool | int | float | str) and len(repr(value)) <= 80)
