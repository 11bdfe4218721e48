"""Whole turns on a real engine: random weights say nothing sensible, so whatever fits was enforced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mm35local.chat.deltas import TextDelta, ToolCallDelta
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.response_format import JsonSchema, ResponseFormat
from mm35local.chat.tools import Tool, ToolChoice, ToolMode
from mm35local.chat.turn import Done, Turn, TurnEvent, run_turn
from mm35local.engine.api import EngineConfig, EngineState
from mm35local.engine.client import EngineClient
from mm35local.errors import RequestError
from mm35local.models.gguf_header import read_header
from mm35local.types import FinishReason, SamplingParams

SWITCH = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "Küche"]}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
TOOLS = (Tool("switch", "Lights.", SWITCH, strict=True), Tool("look", "", {"type": "object"}))


@pytest.fixture(scope="module")
def path(pocket_gguf: Path) -> Path:
    return next(pocket_gguf.glob("*Q8_0.gguf"))


@pytest.fixture(scope="module")
def dialect(path: Path) -> Dialect:
    return load_dialect(read_header(path).metadata, path.name)


@pytest.fixture
async def engine(path: Path, tmp_path: Path) -> AsyncIterator[EngineClient]:
    client = EngineClient(EngineConfig(path, tmp_path / "engine.log", n_ctx=2048, n_batch=128))
    await client.start()
    async with asyncio.timeout(60):
        while client.status.state is EngineState.LOADING:
            await asyncio.sleep(0.01)
    yield client
    await client.aclose()


def asked(choice: ToolChoice, effort: Effort = Effort.NONE, *, parallel: bool = False) -> Conversation:
    messages = (Message(Role.USER, "Lights on in the hall!"),)
    return Conversation(messages, datetime(2026, 1, 1, tzinfo=UTC), effort, TOOLS, choice, parallel)


async def events_of(
    engine: EngineClient, dialect: Dialect, conversation: Conversation, wanted: ResponseFormat | None = None
) -> list[TurnEvent]:
    turn = Turn(conversation, SamplingParams(temperature=1, seed=7, max_tokens=1200), response_format=wanted)
    return [event async for event in run_turn(engine, dialect, turn)]


def end(events: list[TurnEvent]) -> Done:
    done = events[-1]
    assert isinstance(done, Done)
    return done


async def test_a_named_strict_tool_is_called_with_what_its_schema_allows(
    engine: EngineClient, dialect: Dialect
) -> None:
    events = await events_of(engine, dialect, asked(ToolChoice(ToolMode.NAMED, "switch")))
    done = end(events)
    assert (done.finish_reason, done.text, len(done.tool_calls)) == (FinishReason.TOOL_CALLS, "", 1)
    arguments = json.loads(done.tool_calls[0].arguments)
    assert done.tool_calls[0].name == "switch"
    assert arguments.keys() == {"on", "room"}
    assert arguments["room"] in ("hall", "Küche")
    assert not any(isinstance(event, TextDelta) for event in events)
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    assert pieces[0].name == "switch"
    assert "".join(piece.arguments for piece in pieces) == done.tool_calls[0].arguments


async def test_required_calls_one_of_the_tools_and_none_calls_nothing(engine: EngineClient, dialect: Dialect) -> None:
    required = end(await events_of(engine, dialect, asked(ToolChoice(ToolMode.REQUIRED))))
    assert [call.name in ("switch", "look") for call in required.tool_calls] == [True]
    none = end(await events_of(engine, dialect, asked(ToolChoice(ToolMode.NONE))))
    assert (none.tool_calls, bool(none.text)) == ((), True)


async def test_json_follows_its_schema_for_many_at_once(engine: EngineClient, dialect: Dialect) -> None:
    conversation = asked(ToolChoice(ToolMode.NONE))
    runs = await asyncio.gather(*(events_of(engine, dialect, conversation, JsonSchema(SWITCH)) for _ in range(4)))
    for done in map(end, runs):
        assert done.finish_reason is FinishReason.STOP
        assert json.loads(done.text).keys() == {"on", "room"}


async def test_a_schema_that_cannot_be_enforced_never_reaches_the_engine(
    engine: EngineClient, dialect: Dialect
) -> None:
    with pytest.raises(RequestError, match="'uniqueItems' at the top"):
        await events_of(engine, dialect, asked(ToolChoice()), JsonSchema({"type": "array", "uniqueItems": True}))
