"""What an answer may look like, as a grammar that the engine enforces token by token.

A response format that cannot be enforced is refused; a tool whose schema cannot be loses only the keyword.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import regex_to_lark

from mm35local.chat.messages import Conversation
from mm35local.chat.response_format import GrammarSyntax, JsonObject, JsonSchema, RawGrammar
from mm35local.chat.schema_problems import MOST_REPEATS, find_problem, loosened, repeats_too_often
from mm35local.chat.tools import Tool, ToolMode
from mm35local.chat.validation import validation_error
from mm35local.errors import RequestError
from mm35local.types import Grammar

UNSUPPORTED = "unsupported_schema"
_ONE_LINE = {"x-guidance": {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}}
"""As calls are written in all that these models have read. Where any white space may stand, a model that knows of no
argument to give goes on with white space until there is no room left."""


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """`grammar` is None where any answer will do; `warnings` say what could not be enforced."""

    grammar: Grammar | None = None
    warnings: tuple[str, ...] = ()


def answer_schema(wanted: JsonObject | JsonSchema) -> dict[str, Any]:
    """Raises RequestError naming the JSON path and keyword that cannot be enforced."""
    if isinstance(wanted, JsonObject):
        return {"type": "object"}
    if (problem := find_problem(wanted.schema)) is not None:
        raise RequestError(
            f"response_format.json_schema.schema: {problem}",
            "response_format",
            UNSUPPORTED,
            "leave the keyword out, and check the answer for it yourself",
        )
    return dict(wanted.schema) or {"anyOf": [{}]}


def argument_schema(tool: Tool) -> tuple[dict[str, Any], list[str]]:
    """What a strict tool's arguments must be, and a warning for each keyword that cannot be enforced."""
    loose, problems = loosened({**tool.parameters, "type": "object"})
    if loose.get("type") != "object":
        loose = {"type": "object"}
    return {**loose, **_ONE_LINE}, [f"tool {tool.name!r}: {problem}" for problem in problems]


def callable_tools(conversation: Conversation) -> tuple[Tool, ...]:
    """Those that the answer may call. Raises RequestError if the choice is one that nothing fulfils."""
    choice, tools = conversation.tool_choice, conversation.tools
    match choice.mode:
        case ToolMode.NONE:
            return ()
        case ToolMode.NAMED:
            tools = tuple(tool for tool in tools if tool.name == choice.name)
            if not tools:
                raise RequestError(f"tool_choice names {choice.name!r}, which is not among the tools", "tool_choice")
        case ToolMode.REQUIRED if not tools:
            raise RequestError("tool_choice is 'required', but there are no tools", "tool_choice")
    return tools


def must_call(conversation: Conversation) -> bool:
    return conversation.tool_choice.mode in (ToolMode.REQUIRED, ToolMode.NAMED)


def raw_rule(wanted: RawGrammar) -> str:
    """A Lark expression for a grammar of the client's own, to stand behind a rule's name. Raises RequestError."""
    if repeats_too_often(wanted.source):
        raise RequestError(f"the grammar repeats something more than {MOST_REPEATS} times", "grammar", UNSUPPORTED)
    if wanted.syntax is GrammarSyntax.REGEX:
        return f"/{regex_to_lark(wanted.source, use_ascii='')}/"
    return f"%lark {{\n{wanted.source}\n}}"


def json_rule(schema: Mapping[str, Any]) -> str:
    return "SAFE_WS? %json " + json.dumps(schema, ensure_ascii=False)


def checked(lark: str, *, is_required: bool, warnings: tuple[str, ...] = ()) -> AnswerGrammar:
    """Raises RequestError if llguidance does not take the whole and it is required; else goes without, and says so."""
    error = validation_error(lark)
    if not error:
        return AnswerGrammar(Grammar(lark, is_required), warnings)
    problem = " ".join(error.partition("\n")[0].split())
    if is_required:
        raise RequestError(
            f"the answer's grammar cannot be compiled: {problem}", "response_format", UNSUPPORTED, "simplify it"
        )
    return AnswerGrammar(None, (*warnings, f"the tools' grammar cannot be compiled and is not enforced: {problem}"))
