"""What the answer's text must look like, in the ways that the wires write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mm35local.chat.response_format import GrammarSyntax, JsonObject, JsonSchema, RawGrammar, ResponseFormat
from mm35local.errors import RequestError


def read_format(given: Any, field: str) -> ResponseFormat | None:
    """`field` is its name on the wire, for errors. Raises RequestError for what is none of the known formats."""
    if given is None:
        return None
    kind = str(given.get("type")) if isinstance(given, dict) else ""
    if kind not in _READERS:
        raise RequestError(f"{field}: expected a type of {', '.join(_READERS)}, found {str(given)[:80]!r}", field)
    return _READERS[kind](given, field)


def _object(given: Mapping[str, Any], field: str) -> ResponseFormat:
    """llama.cpp's clients send a schema with it."""
    return _schema(given, field) if given.get("schema") else JsonObject()


def _schema(given: Mapping[str, Any], field: str) -> ResponseFormat:
    """Chat nests the schema one level deeper than the others."""
    nested = given.get("json_schema")
    schema = (nested if isinstance(nested, dict) else given).get("schema")
    if not isinstance(schema, dict):
        raise RequestError(f"{field}: the schema is missing or no object", field)
    return JsonSchema(schema)


def _grammar(given: Mapping[str, Any], field: str) -> ResponseFormat:
    syntax, source = given.get("syntax"), given.get("definition", given.get("grammar"))
    if syntax not in tuple(GrammarSyntax) or not isinstance(source, str):
        raise RequestError(f"{field}: a grammar needs a syntax, lark or regex, and a definition", field)
    return RawGrammar(GrammarSyntax(syntax), source)


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], ResponseFormat | None]] = {
    "text": lambda given, field: None,
    "json_object": _object,
    "json_schema": _schema,
    "grammar": _grammar,
}
