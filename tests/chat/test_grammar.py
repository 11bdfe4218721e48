"""Grammars are judged by what llguidance lets through, token by token, as the engine asks it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest

from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.response_format import GrammarSyntax, JsonObject, JsonSchema, RawGrammar, ResponseFormat
from mm35local.chat.tools import Tool, ToolChoice, ToolMode
from mm35local.engine.constraint import ConstraintCompiler, Pieces
from mm35local.errors import RequestError
from mm35local.types import Grammar
from tests.fakes.metadata import chatml_ids, chatml_metadata, mistral_metadata

THINK, END_THINK, CALL, ARGS, EOS, INST = 34, 35, 9, 32, 2, 3
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("f"), Tool("weather", parameters=WEATHER))
STRICT = (Tool("f"), Tool("weather", parameters=WEATHER, strict=True))
Part = str | int


@cache
def mistral() -> Dialect:
    return load_dialect(mistral_metadata(), "pocket.gguf")


@cache
def chatml() -> Dialect:
    return load_dialect(chatml_metadata(), "x.gguf")


def bytewise(text: str) -> list[int]:
    return [1000 + byte for byte in text.encode()]


@cache
def compiler(is_mistral: bool) -> ConstraintCompiler:
    vocabulary = (mistral() if is_mistral else chatml()).vocabulary
    controls = sorted(vocabulary.control_ids)
    pieces = [vocabulary.token_bytes(i) or vocabulary.tokens[i].encode() for i in range(len(vocabulary.tokens))]
    tokenize = bytewise if is_mistral else chatml_ids
    return ConstraintCompiler(Pieces(pieces, controls, EOS, tokenize), [EOS])


def accepts(dialect: Dialect, grammar: Grammar | None, *parts: Part) -> bool:
    """Does the grammar let this answer through, and end there?"""
    assert grammar is not None
    constraint = compiler(dialect is mistral()).compile(grammar)
    tokenize = bytewise if dialect is mistral() else chatml_ids
    ids = [id_ for part in parts for id_ in ([part] if isinstance(part, int) else tokenize(part))]
    for id_ in [*ids, EOS]:
        logits = np.zeros(len(dialect.vocabulary.tokens), dtype=np.float32)
        constraint.prepare()
        constraint.mask(logits)
        if not np.isfinite(logits[id_]):
            return False
        constraint.feed(id_)
    return True


def conversation(
    tools: Sequence[Tool] = (), choice: ToolChoice | None = None, effort: Effort = Effort.NONE, parallel: bool = True
) -> Conversation:
    messages = (Message(Role.USER, "U"),)
    return Conversation(
        messages, datetime(2026, 1, 1, tzinfo=UTC), effort, tuple(tools), choice or ToolChoice(), parallel
    )


def call(name: str, arguments: str = "{}") -> list[Part]:
    return [CALL, name, ARGS, arguments]


def check(
    asked: Conversation, wanted: ResponseFormat | None, good: Sequence[Sequence[Part]], bad: Sequence[Sequence[Part]]
) -> None:
    grammar = mistral().grammar(asked, wanted).grammar
    assert [answer for answer in good if not accepts(mistral(), grammar, *answer)] == []
    assert [answer for answer in bad if accepts(mistral(), grammar, *answer)] == []


def test_nothing_asked_nothing_enforced() -> None:
    assert mistral().grammar(conversation(), None).grammar is None


def test_auto_lets_text_and_calls_of_the_offered_tools_through() -> None:
    good: list[list[Part]] = [["Hé 🙂"], [], call("f"), ["See: ", *call("f", ' {"x": [1]}'), *call("weather")]]
    bad: list[list[Part]] = [
        call("g"),
        call("f", "[]"),
        [*call("f"), " done"],
        [INST],
        [THINK, "a", END_THINK, "b"],
        [ARGS, "{}"],
    ]
    check(conversation(TOOLS), None, good, bad)


def test_thinking_comes_first_where_the_model_was_told_to() -> None:
    thought: list[Part] = [THINK, "hm [/THINK] é", END_THINK]
    asked = conversation(TOOLS, effort=Effort.HIGH)
    check(asked, None, [[*thought, "b"], [*thought, *call("f")], ["b"]], [["b", *thought], [THINK, "a"]])
    check(conversation(effort=Effort.HIGH), JsonObject(), [[*thought, "{}"], ["{}"]], [[*thought, "no"]])


def test_required_named_none_and_one_at_a_time() -> None:
    required, named = ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.NAMED, "weather")
    check(conversation(TOOLS, required), None, [call("f"), [*call("f"), *call("f")]], [["text"], []])
    check(conversation(TOOLS, named), None, [call("weather")], [call("f"), ["text"]])
    check(conversation(TOOLS, ToolChoice(ToolMode.NONE)), None, [["text"], []], [call("f")])
    check(conversation(TOOLS, parallel=False), None, [call("f"), ["x"]], [[*call("f"), *call("f")]])


def test_a_strict_tool_s_arguments_follow_its_schema() -> None:
    good = [call("weather", '{"city": "Köln"}'), call("f", '{"any": 1}')]
    check(conversation(STRICT), None, good, [call("weather", "{}"), call("weather", '{"city": 1}')])


def test_a_strict_tool_s_arguments_are_one_line_so_that_white_space_never_goes_on() -> None:
    lines = [call("weather", '{"city": "a", "b": [1, {"c": 2}]}'), call("weather", '{"city":"a","b":[1,{"c":2}]}')]
    runs = [
        call("weather", '{"city"  : "a"}'),
        call("weather", '{"city":   "a"}'),
        call("weather", '{\n\n"city": "a"}'),
    ]
    check(conversation(STRICT), None, lines, runs)


def test_json() -> None:
    check(conversation(), JsonObject(), [["{}"], ['\n{"a": [1, null]}']], [["[]"], ["text"], ["{} and"]])
    check(conversation(), JsonSchema(WEATHER), [['{"city": "a"}']], [["{}"], ['{"city": 1}']])
    check(conversation(), JsonSchema({}), [["1"], ['"a"'], ["{}"]], [["text"]])
    check(conversation(TOOLS), JsonSchema(WEATHER), [['{"city": "a"}'], call("f")], [["text"], ["text", *call("f")]])
    check(conversation(TOOLS, ToolChoice(ToolMode.NONE)), JsonObject(), [["{}"]], [call("f")])
    check(conversation(TOOLS, ToolChoice(ToolMode.REQUIRED)), JsonObject(), [call("f")], [["{}"]])


def test_grammars_of_the_client_s_own() -> None:
    lark = RawGrammar(GrammarSyntax.LARK, 'start: NUMBER ("," NUMBER)*\nNUMBER: /[0-9]+/')
    check(conversation(), lark, [["1,22,3"]], [["1,,2"], [""], ["a"]])
    check(conversation(effort=Effort.HIGH), lark, [[THINK, "a", END_THINK, "1,2"]], [[THINK, "a", END_THINK, "b"]])
    regex = RawGrammar(GrammarSyntax.REGEX, r"a/\d{2}[\"'{}]")
    check(conversation(), regex, [["a/12}"], ['a/12"']], [["a/1"], ["a/123"]])


@pytest.mark.parametrize(
    ("schema", "place", "keyword"),
    [
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<=x)y"}}}, "/properties/a", "pattern"),
        ({"type": "object", "properties": {"a/b": {"not": {"type": "string"}}}}, "/properties/a~1b", "not"),
        ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, "/items", "uniqueItems"),
        ({"$ref": "#/$defs/x"}, "the top", "$ref"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string", "format": "no"}}}, "/$defs/x", "format"),
        ({"anyOf": [{"type": "string"}, {"type": "objekt"}]}, "/anyOf/1", "type"),
        ({"anyOf": [{"type": "array", "minItems": 10**9}]}, "/anyOf/0", "minItems"),
        ({"type": "string", "pattern": "a{1000000000}"}, "the top", "pattern"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "the top", "propertyNames"),
        (
            {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string", "format": "no"}}},
            "/properties/b",
            "format",
        ),
    ],
)
def test_a_response_format_that_cannot_be_enforced_names_path_and_keyword(
    schema: dict[str, Any], place: str, keyword: str
) -> None:
    for dialect in (mistral(), chatml()):
        with pytest.raises(RequestError, match="cannot be enforced") as caught:
            dialect.grammar(conversation(), JsonSchema(schema))
        assert f"the keyword {keyword!r} at {place} cannot be enforced" in caught.value.message
        assert (caught.value.field, caught.value.code) == ("response_format", "unsupported_schema")


def test_a_tool_loses_only_what_cannot_be_enforced() -> None:
    schema = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "pattern": "^(?!/etc)"},
            "mode": {"oneOf": [{"type": "string", "maxLength": 1}, {"type": "string", "maxLength": 2}]},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        },
        "required": ["path", "mode"],
    }
    tool = Tool("open", parameters=schema, strict=True)
    enforced = mistral().grammar(conversation([tool]), None)
    assert [warning.partition(" cannot")[0] for warning in enforced.warnings] == [
        "tool 'open': the keyword 'pattern' at /properties/path",
        "tool 'open': the keyword 'oneOf' at /properties/mode",
        "tool 'open': the keyword 'uniqueItems' at /properties/tags",
    ]
    assert accepts(mistral(), enforced.grammar, *call("open", '{"path": "/etc", "mode": "r", "tags": ["a", "a"]}'))
    assert not accepts(mistral(), enforced.grammar, *call("open", '{"path": "/etc", "mode": "rwx"}'))
    assert schema["properties"] == tool.parameters["properties"]


def test_a_tool_beyond_repair_takes_any_object() -> None:
    tool = Tool("f", parameters={"allOf": [{"type": "string"}]}, strict=True)
    enforced = mistral().grammar(conversation([tool]), None)
    assert len(enforced.warnings) == 1
    assert accepts(mistral(), enforced.grammar, *call("f", '{"a": 1}'))


@pytest.mark.parametrize(
    ("asked", "wanted", "problem"),
    [
        (conversation((), ToolChoice(ToolMode.REQUIRED)), None, "there are no tools"),
        (conversation(TOOLS, ToolChoice(ToolMode.NAMED, "g")), None, "names 'g'"),
        (conversation(), RawGrammar(GrammarSyntax.LARK, "start: nope"), "cannot be compiled"),
        (conversation(), RawGrammar(GrammarSyntax.LARK, "}\nstart: /a/"), "cannot be compiled"),
        (conversation(), RawGrammar(GrammarSyntax.REGEX, "(?<=a)b"), "cannot be compiled"),
        (conversation(), RawGrammar(GrammarSyntax.LARK, 'start: "a"{1000000000}'), "more than 10000 times"),
        (conversation(), RawGrammar(GrammarSyntax.REGEX, "("), "cannot be compiled"),
    ],
)
def test_what_cannot_be_is_refused(asked: Conversation, wanted: ResponseFormat | None, problem: str) -> None:
    for dialect in (mistral(), chatml()):
        with pytest.raises(RequestError, match=problem):
            dialect.grammar(asked, wanted)


def test_other_models_write_json_and_own_grammars_but_cannot_be_made_to_call() -> None:
    json_only = chatml().grammar(conversation(), JsonSchema(WEATHER)).grammar
    assert accepts(chatml(), json_only, '{"city": "a"}')
    assert not accepts(chatml(), json_only, "{}")
    regex = chatml().grammar(conversation(), RawGrammar(GrammarSyntax.REGEX, "a+")).grammar
    assert accepts(chatml(), regex, "aaa")
    assert chatml().grammar(conversation(TOOLS), None).grammar is None
    with pytest.raises(RequestError, match="cannot be made to call"):
        chatml().grammar(conversation(TOOLS, ToolChoice(ToolMode.REQUIRED)), None)


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_a_large_schema_compiles_in_time(size: int) -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(size // 20)}}
    assert len(json.dumps(schema)) > size
    assert mistral().grammar(conversation(), JsonSchema(schema)).grammar is not None


def test_a_bomb_is_refused_or_compiled_but_never_hangs() -> None:
    for schema in (
        {"type": "string", "pattern": "(a{1,1000}){1,1000}"},
        {"type": "string", "pattern": "(.*a){20}" * 20, "maxLength": 100_000_000},
        {"type": "array", "items": {"type": "array", "minItems": 10**9}, "minItems": 10**9},
        json.loads('{"items":' * 200 + "{}" + "}" * 200),
    ):
        try:
            found = mistral().grammar(conversation(), JsonSchema(schema))
        except RequestError:
            continue
        assert found.grammar is not None
