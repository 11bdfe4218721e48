"""Every recorded answer, cut at every place, on every wire: the stream says what the whole says, however it was cut."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.tools import Tool
from mm35local.chat.turn import Turn, run_turn
from mm35local.server.answers import Writer
from mm35local.server.chat_writer import ChatWriter
from mm35local.server.completions import CompletionWriter
from mm35local.server.messages_writer import MessagesWriter
from mm35local.server.responses_writer import ResponsesWriter
from mm35local.server.verbatim import Verbatim
from mm35local.types import SamplingParams
from tests.chat.test_golden import answers, mistral
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids

TOOLS = (Tool("get_weather", ""), Tool("answer", ""))
HI = Conversation((Message(Role.USER, "Hi"),), datetime(2026, 11, 25, tzinfo=UTC), tools=TOOLS)
Events = list[Mapping[str, Any]]
Told = tuple[str, str, list[tuple[str, str]]]
"""Thinking, text, and the calls' names and arguments."""


def chat(events: Events) -> Told:
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    calls: dict[int, list[str]] = defaultdict(lambda: ["", ""])
    for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
        calls[call["index"]][0] += call["function"]["name"]
        calls[call["index"]][1] += call["function"]["arguments"]
    thinking, text = ("".join(delta.get(key) or "" for delta in deltas) for key in ("reasoning_content", "content"))
    return thinking, text, [(name, arguments) for name, arguments in calls.values()]


def chat_whole(whole: Mapping[str, Any]) -> Told:
    message = whole["choices"][0]["message"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
    return message.get("reasoning_content", ""), message["content"] or "", calls


def completion(events: Events) -> Told:
    return "", "".join(choice["text"] for event in events for choice in event["choices"]), []


def completion_whole(whole: Mapping[str, Any]) -> Told:
    return "", whole["choices"][0]["text"], []


def messages(events: Events) -> Told:
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "told": ""}
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            blocks[event["index"]]["told"] += (
                delta.get("text") or delta.get("thinking") or delta.get("partial_json", "")
            )
    return _of_blocks([(block["type"], block.get("name", ""), block["told"]) for block in blocks.values()])


def messages_whole(whole: Mapping[str, Any]) -> Told:
    return _of_blocks([(b["type"], b.get("name", ""), b.get(b["type"], b.get("input"))) for b in whole["content"]])


def _of_blocks(blocks: Sequence[tuple[str, str, Any]]) -> Told:
    thinking, text = ("".join(told for kind, _, told in blocks if kind == each) for each in ("thinking", "text"))
    return thinking, text, [(name, _as_object(told)) for kind, name, told in blocks if kind == "tool_use"]


def _as_object(arguments: Any) -> str:
    return json.dumps(json.loads(arguments or "{}") if isinstance(arguments, str) else arguments)


def responses(events: Events) -> Told:
    pieces: dict[int, str] = defaultdict(str)
    kinds = {e["output_index"]: e["item"] for e in events if e["type"] == "response.output_item.added"}
    for event in events:
        if event["type"].endswith(".delta"):
            pieces[event["output_index"]] += event["delta"]
    return _of_items([(item["type"], item.get("name", ""), pieces[i]) for i, item in kinds.items()])


def responses_whole(whole: Mapping[str, Any]) -> Told:
    items = whole["output"]
    return _of_items([(i["type"], i.get("name", ""), i.get("arguments") or _text(i)) for i in items])


def _text(item: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in item.get("content", ()))


def _of_items(items: Sequence[tuple[str, str, str]]) -> Told:
    thinking, text = ("".join(told for kind, _, told in items if kind == each) for each in ("reasoning", "message"))
    return thinking, text, [(name, told) for kind, name, told in items if kind == "function_call"]


Read = Callable[[Any], Told]
WIRES: Mapping[str, tuple[Callable[[], Writer], Read, Read]] = {
    "chat": (lambda: ChatWriter("m"), chat, chat_whole),
    "completions": (
        lambda: CompletionWriter("m", num_choices=1, num_answers=1, wants_usage=False),
        completion,
        completion_whole,
    ),
    "messages": (lambda: MessagesWriter("m"), messages, messages_whole),
    "responses": (lambda: ResponsesWriter("m", {}), responses, responses_whole),
}


async def told(wire: str, steps: Sequence[tuple[int, ...]]) -> tuple[Told, Told]:
    """What the stream says, and what the whole says."""
    make, read, read_whole = WIRES[wire]
    engine: FakeEngine = FakeEngine(lambda prompt: Script(tuple(steps)), chatml_ids)
    engine.load()
    dialect = Verbatim(mistral().vocabulary, (5,)) if wire == "completions" else mistral()
    writer, frames = make(), b""
    async for event in run_turn(engine, dialect, Turn(HI, SamplingParams())):
        frames += b"".join(writer.take(0, event))
    lines = (frames + writer.end()).decode().split("\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return read(events), read_whole(writer.whole())


@pytest.mark.parametrize("wire", WIRES)
async def test_a_recorded_answer_says_the_same_however_it_is_cut(wire: str) -> None:
    recorded = [ids for ids in answers() if ids]
    assert len(recorded) >= 20
    for ids in recorded:
        whole = (await told(wire, [ids]))[1]
        assert any(whole) or wire == "completions"
        for i in range(len(ids)):
            assert await told(wire, [ids[:i], ids[i:]]) == (whole, whole)
        assert await told(wire, [(id_,) for id_ in ids]) == (whole, whole)
