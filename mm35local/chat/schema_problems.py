"""Which keyword of a JSON schema llguidance cannot enforce: its own messages name no place.

A subschema is compiled alone, with the definitions it may refer to; the deepest one that fails has the keyword.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mm35local.chat.validation import validation_error

_DEFINITIONS = ("$defs", "definitions")
_MAPS = (*_DEFINITIONS, "properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES = ("items", "additionalProperties")
_MISSING = re.compile(r"Pointer '(.*)' does not exist")
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
_REPEAT = re.compile(r"[{,~.]\s*(\d{5,18})")
MOST_REPEATS = 10_000
_MOST_CHECKS = 2000
_MOST_REPAIRS = 100

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    place: Place
    """The subschema."""
    keyword: str
    """Empty where no single keyword is to blame."""
    detail: str

    @property
    def path(self) -> str:
        """A JSON pointer to the subschema; empty for the whole."""
        return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in self.place)

    def __str__(self) -> str:
        what = f"the keyword {self.keyword!r}" if self.keyword else "the schema"
        return f"{what} at {self.path or 'the top'} cannot be enforced: {self.detail}"


def find_problem(schema: Mapping[str, Any]) -> Problem | None:
    """The first keyword that keeps `schema` from being compiled; None if nothing does."""
    return _Search(schema).problem()


def loosened(schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """A copy without the keywords that cannot be enforced, and those. `oneOf` becomes `anyOf`."""
    loose: dict[str, Any] = copy.deepcopy(dict(schema))
    problems: list[Problem] = []
    while (problem := find_problem(loose)) is not None:
        problems.append(problem)
        if not problem.keyword or len(problems) >= _MOST_REPAIRS:
            return {"type": "object"}, problems
        _remove(loose, problem)
    return loose, problems


def _remove(schema: dict[str, Any], problem: Problem) -> None:
    node: Any = schema
    for step in problem.place:
        node = node[step]
    value = node.pop(problem.keyword)
    if problem.keyword == "oneOf" and "anyOf" not in node:
        node["anyOf"] = value


def compile_error(schema: object) -> str:
    """What llguidance says about a schema, in a line; empty if it compiles."""
    try:
        text = json.dumps(schema, ensure_ascii=False)
        too_many = next(_too_large_counts(schema), "")
    except RecursionError:
        return "it is nested too deeply"
    if too_many:
        return too_many
    # "at 1(8): failed to compile JSON schema: <what> \n   1 | start: %json …"
    error = validation_error("start: %json " + text)
    message = error.partition("\n   1 |")[0].partition("failed to compile JSON schema: ")
    return " ".join((message[2] or message[0]).split())


def _too_large_counts(schema: object) -> Iterator[str]:
    """llguidance writes these out, and memory that cannot be had ends the process."""
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword in _COUNTS and isinstance(value, int | float) and value > MOST_REPEATS:
                yield f"{keyword} is {value}, at most {MOST_REPEATS} can be counted"
            elif keyword == "pattern" and isinstance(value, str) and repeats_too_often(value):
                yield f"it repeats something more than {MOST_REPEATS} times"
            yield from _too_large_counts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _too_large_counts(value)


def repeats_too_often(expression: str) -> bool:
    """Has a regular expression or a Lark grammar a count that would be written out beyond all memory?"""
    return any(int(count) > MOST_REPEATS for count in _REPEAT.findall(expression))


class _Search:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._num_checks = 0

    def problem(self) -> Problem | None:
        return self._at(self._root, ()) if self._error(self._root, ()) else None

    def _at(self, node: Any, place: Place) -> Problem:
        """`node` is known not to compile."""
        for child, step in _children(node):
            if self._error(child, (*place, *step)):
                return self._at(child, (*place, *step))
        detail = self._error(node, place)
        return Problem(place, self._keyword(node, place) if isinstance(node, dict) else "", detail)

    def _keyword(self, node: dict[str, Any], place: Place) -> str:
        """The one without which the rest compiles, else the first that does not compile alone."""
        last = (*_MAPS, *_LISTS, *_SINGLES, "type")
        keywords = sorted(node, key=lambda keyword: keyword in last)
        without = ({name: value for name, value in node.items() if name != keyword} for keyword in keywords)
        found = next((k for k, rest in zip(keywords, without, strict=True) if not self._error(rest, place)), None)
        alone = (keyword for keyword in keywords if self._error({keyword: node[keyword]}, place))
        return found if found is not None else next(alone, "")

    def _error(self, node: Any, place: Place) -> str:
        self._num_checks += 1
        if self._num_checks > _MOST_CHECKS:
            return ""
        if place and isinstance(node, dict):
            definitions = {name: self._root[name] for name in _DEFINITIONS if name in self._root}
            node = {**definitions, **node}
        error = compile_error(node)
        missing = _MISSING.match(error) if place else None
        return "" if missing and self._has(missing[1]) else error

    def _has(self, pointer: str) -> bool:
        """Does the whole schema have what the part refers to?"""
        found: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return False
        return True


def _children(node: Any) -> Iterator[tuple[Any, Place]]:
    if not isinstance(node, dict):
        return
    for keyword in _MAPS:
        if isinstance(inner := node.get(keyword), dict):
            yield from ((child, (keyword, name)) for name, child in inner.items())
    for keyword in (*_LISTS, "items"):
        if isinstance(inner := node.get(keyword), list):
            yield from ((child, (keyword, i)) for i, child in enumerate(inner))
    for keyword in _SINGLES:
        if isinstance(inner := node.get(keyword), dict):
            yield inner, (keyword,)
