"""Tools and the choice among them, in the three ways that the wires write them.

Invariant: a tool is read or named in a note; none is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mm35local.chat.tools import Tool, ToolChoice, ToolMode
from mm35local.errors import RequestError

_MODES = {
    "none": ToolMode.NONE,
    "auto": ToolMode.AUTO,
    "required": ToolMode.REQUIRED,
    "any": ToolMode.REQUIRED,  # Mistral's and Anthropic's word
}


def read_tools(given: Sequence[Any] | None) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The functions among them, and notes on what else was there: tools that only their maker's server can run."""
    tools: list[Tool] = []
    notes: list[str] = []
    for i, entry in enumerate(given or ()):
        if not isinstance(entry, dict):
            raise RequestError(f"tools.{i}: expected an object, found {type(entry).__name__}", "tools")
        if _is_function(entry):
            tools.append(_tool(entry, i))
        else:
            notes.append(f"tool {entry.get('name') or i} of type {entry.get('type')!r} was left out")
    return tuple(tools), tuple(notes)


def read_choice(given: Any, tools: Sequence[Tool]) -> ToolChoice:
    """Raises RequestError for a choice that cannot be kept."""
    choice = ToolChoice() if given is None else _choice(given)
    names = [tool.name for tool in tools]
    if choice.mode is ToolMode.NAMED and choice.name not in names:
        raise RequestError(f"tool_choice names {choice.name!r}, expected one of {names}", "tool_choice")
    if choice.mode is ToolMode.REQUIRED and not tools:
        raise RequestError("tool_choice requires a call, but there are no tools", "tool_choice")
    return choice


def _is_function(entry: dict[str, Any]) -> bool:
    """Anthropic's own functions have no type, or the type custom with a schema."""
    return entry.get("type", "function") == "function" or "input_schema" in entry


def _tool(entry: dict[str, Any], i: int) -> Tool:
    nested = entry.get("function")
    found = nested if isinstance(nested, dict) else entry
    name, description = found.get("name"), found.get("description")
    parameters = found.get("parameters", found.get("input_schema"))
    if not isinstance(name, str):
        raise RequestError(f"tools.{i}: the function has no name", "tools")
    if not isinstance(parameters, dict | None):
        raise RequestError(f"tools.{i}: the parameters of {name[:80]!r} are no JSON schema", "tools")
    text = description if isinstance(description, str) else ""
    return Tool(name, text, parameters or {}, strict=found.get("strict") is True)


def _choice(given: Any) -> ToolChoice:
    if isinstance(given, str) and given in _MODES:
        return ToolChoice(_MODES[given])
    kind = str(given.get("type")) if isinstance(given, dict) else ""
    if kind in _MODES:
        return ToolChoice(_MODES[kind])
    if isinstance(given, dict) and kind in ("function", "tool"):
        nested = given.get("function")
        name = (nested if isinstance(nested, dict) else given).get("name")
        if isinstance(name, str):
            return ToolChoice(ToolMode.NAMED, name)
    raise RequestError(
        f"tool_choice: expected none, auto, required or a function, found {str(given)[:80]!r}", "tool_choice"
    )
