"""Calls written as text: found wherever they are cut, and given back as text where they are none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.answer import merged
from mm35local.chat.deltas import Delta, TextDelta, ToolCallDelta
from mm35local.chat.dialect import load_dialect
from mm35local.chat.hermes import HermesParser
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.parser import TextParser
from mm35local.chat.tools import Tool
from mm35local.chat.turn import Done, Turn, run_turn
from mm35local.chat.vocabulary import Vocabulary
from mm35local.types import FinishReason, SamplingParams
from tests.chat.cuts import cut
from tests.chat.test_turn import NOW, fake, steps
from tests.fakes.engine import Script
from tests.fakes.metadata import CHATML, chatml_ids, chatml_metadata

TEMPLATE = "{% if tools %}{{ tools | tojson }}<tool_call></tool_call>{% endif %}" + CHATML
ONE = '<tool_call>\n{"name": "add", "arguments": {"a": "ü</tool_call>", "b": [1]}}\n</tool_call>'
PIECES = st.sampled_from([ONE, "<tool_call>", "</tool_call>", "<tool", "{", "}", '"', "\\", " ", "\n", "é🙂", "x"])


def read(text: str, *, is_cut: bool = False) -> tuple[list[Delta], list[str]]:
    return read_pieces([chatml_ids(text)], is_cut=is_cut)


def read_pieces(pieces: list[list[int]], *, is_cut: bool = False) -> tuple[list[Delta], list[str]]:
    parser = HermesParser(Vocabulary.from_metadata(chatml_metadata(), "x"))
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return merged([*deltas, *parser.flush(is_cut=is_cut)]), parser.warnings


def call(index: int, name: str, arguments: object) -> list[Delta]:
    told = json.dumps(arguments, ensure_ascii=False)
    return [ToolCallDelta(index, name), ToolCallDelta(index, arguments=told)]


ADD = {"a": "ü</tool_call>", "b": [1]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello  ", [TextDelta("Hello  ")]),
        (ONE, call(0, "add", ADD)),
        (f"Let me see.\n\n{ONE}\n{ONE}\n", [TextDelta("Let me see."), *call(0, "add", ADD), *call(1, "add", ADD)]),
        ('<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', call(0, "f", {"x": 1})),
        ('<tool_call>{"name": "f"}', call(0, "f", {})),
        ('<tool_call>{"name": "f", "arguments": {"x": "\\ud83d"}}</tool_call>', call(0, "f", {"x": "\ufffd"})),
        (
            '<tool_call>{"name": "f", "arguments": "{\\"x\\": \\"\\\\ud83d\\"}"}</tool_call>',
            call(0, "f", {"x": "\ufffd"}),
        ),
        ('<tool_call>{"name": "f", "arguments": {"x": "y', call(0, "f", {"x": "y"})),
        ("<tool_call>no</tool_call>", [TextDelta("<tool_call>no</tool_call>")]),
        ('<tool_call>{"a": 1}</tool_call>', [TextDelta('<tool_call>{"a": 1}</tool_call>')]),
        ("a < b <tool", [TextDelta("a < b <tool")]),
    ],
)
def test_what_is_a_call_and_what_is_not(text: str, expected: list[Delta]) -> None:
    assert read(text)[0] == expected


def test_an_answer_that_was_cut_off_is_not_made_whole() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"x": "y'
    assert read(text, is_cut=True) == ([TextDelta(text)], ["a call was cut off"])


@given(st.lists(PIECES, max_size=8).map("".join), st.data())
def test_however_it_is_cut(text: str, data: st.DataObject) -> None:
    pieces = [list(piece) for piece in data.draw(cut(chatml_ids(text)))]
    assert read_pieces(pieces) == read(text) == read_pieces([[id_] for id_ in chatml_ids(text)])


def test_only_templates_that_write_such_calls_read_them() -> None:
    assert isinstance(load_dialect(chatml_metadata(TEMPLATE), "x").parser(), HermesParser)
    assert isinstance(load_dialect(chatml_metadata(), "x").parser(), TextParser)


async def test_a_turn_ends_with_its_calls() -> None:
    tools = (Tool("add", "", {"type": "object"}),)
    turn = Turn(Conversation((Message(Role.USER, "Hi"),), NOW, tools=tools), SamplingParams())
    dialect = load_dialect(chatml_metadata(TEMPLATE), "x")
    events = [event async for event in run_turn(fake(Script(steps(ONE, 3))), dialect, turn)]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.TOOL_CALLS
    assert [(each.name, json.loads(each.arguments)) for each in done.tool_calls] == [("add", ADD)]
