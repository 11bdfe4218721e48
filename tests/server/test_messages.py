"""Anthropic's wire: what agents built for it send, and the events they read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mm35local.chat.messages import Effort
from mm35local.errors import WorkerDied
from tests.fakes.engine import Script
from tests.fakes.metadata import mistral_metadata
from tests.server.conftest import ANSWER, SAMPLING, Here, fake_engine, mistral_text, running, script, served_model

HI = [{"role": "user", "content": "Hi"}]
THINKS = Script(((34, 1000 + ord("h")), (1000 + ord("m"), 35), (1000 + ord("4"),)))
CALL = Script(((9, *(1000 + byte for byte in b"add")), (32, *(1000 + byte for byte in b'{"a": ')), (1049, 1125)))
TOOLS = [{"name": "add", "description": "Adds", "input_schema": {"type": "object", "properties": {}}}]


async def ask(here: Here, **body: object) -> Any:
    reply = await here.client.post("/v1/messages", json={"messages": HI, "max_tokens": 100, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def events(here: Here, **body: object) -> list[dict[str, Any]]:
    body = {"messages": HI, "max_tokens": 100, "stream": True, **body}
    reply = await here.client.post("/v1/messages", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in reply.text.strip().split("\n\n"):
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        found.append(payload)
    return found


async def test_a_message_in_one_piece(here: Here) -> None:
    body = await ask(here)
    assert (body["type"], body["role"], body["stop_reason"]) == ("message", "assistant", "end_turn")
    assert body["content"] == [{"type": "text", "text": ANSWER}]
    assert body["usage"] == {
        "input_tokens": 21,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(ANSWER.encode()),
    }


async def test_the_sequence_of_events(here: Here) -> None:
    found = await events(here)
    kinds = [event["type"] for event in found]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert "".join(event["delta"]["text"] for event in found[3:-3]) == ANSWER
    assert found[0]["message"]["usage"]["input_tokens"] == 21
    assert found[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == len(ANSWER.encode())


async def test_the_stop_sequence_that_ended_it_is_named(here: Here) -> None:
    body = await ask(here, stop_sequences=["never", "wör"])
    assert body["content"] == [{"type": "text", "text": "Hello, "}]
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "wör")
    found = await events(here, stop_sequences=["never", "wör"])
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "wör"}


async def test_thinking_is_a_block_of_its_own() -> None:
    engine = fake_engine(THINKS)
    async with running(engine, served_model(mistral_metadata())) as here:
        body = await ask(here, thinking={"type": "enabled", "budget_tokens": 1024})
        assert [block["type"] for block in body["content"]] == ["thinking", "text"]
        assert (body["content"][0]["thinking"], body["content"][1]["text"]) == ("hm", "4")
        found = await events(here, thinking={"type": "adaptive"})
    starts = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert starts == [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": ""}]
    deltas = [event["delta"]["type"] for event in found if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "thinking_delta", "signature_delta", "text_delta"]
    assert [record.params.temperature for record in engine.records] == [SAMPLING[Effort.HIGH].temperature] * 2


async def test_a_call_of_a_tool() -> None:
    async with running(fake_engine(CALL), served_model(mistral_metadata())) as here:
        body = await ask(here, tools=TOOLS)
        (call,) = body["content"]
        assert (call["type"], call["name"], call["input"], body["stop_reason"]) == (
            "tool_use",
            "add",
            {"a": 1},
            "tool_use",
        )
        assert '"name": "add"' in mistral_text(here)
        found = await events(here, tools=TOOLS)
    (start,) = [event["content_block"] for event in found if event["type"] == "content_block_start"]
    assert (start["name"], start["input"]) == ("add", {})
    pieces = [event["delta"]["partial_json"] for event in found if event["type"] == "content_block_delta"]
    assert json.loads("".join(pieces)) == {"a": 1}
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def calling(arguments: str) -> Script:
    """A call of `add` in one step."""
    return Script(((9, *(1000 + byte for byte in b"add"), 32, *(1000 + byte for byte in arguments.encode())),))


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"a": "x\\ud83d"}', {"a": "x\ufffd"}),
        ('{"a": 1e999}', {"unfinished": '{"a": 1e999}'}),
        ('{"a": NaN}', {"unfinished": '{"a": NaN}'}),
    ],
)
async def test_arguments_that_no_json_can_hold(arguments: str, given: dict[str, Any]) -> None:
    async with running(fake_engine(calling(arguments)), served_model(mistral_metadata())) as here:
        (call,) = (await ask(here, tools=TOOLS))["content"]
    assert call["input"] == given


async def test_arguments_of_any_depth_are_told() -> None:
    engine = fake_engine()
    async with running(engine, served_model(mistral_metadata())) as here:
        for depth in (*range(930, 960), 100_000):  # of Python's limit, a part is in use
            arguments = '{"a": ' + "[" * depth
            for text in (arguments, arguments + "]" * depth + "}"):
                engine.answer = lambda prompt, text=text: calling(text)  # type: ignore[misc]
                reply = await here.client.post("/v1/messages", json={"messages": HI, "tools": TOOLS})
                assert (reply.status_code, '"type":"tool_use"' in reply.text) == (200, True), depth


async def test_a_history_as_agents_send_it() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "U", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "T", "signature": "s"},
                {"type": "text", "text": "A"},
                {"type": "tool_use", "id": "toolu_01", "name": "add", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_01", "content": [{"type": "text", "text": "R"}]},
                {"type": "text", "text": "V"},
            ],
        },
        {"role": "system", "content": "S"},
    ]
    async with running(fake_engine(), served_model(mistral_metadata())) as here:
        await ask(here, messages=messages, tools=TOOLS, metadata={"user_id": "x"}, context_management={"edits": []})
        text = mistral_text(here)
    positions = [text.index(piece) for piece in ("U", "TA", 'add{"a": 1}', "R", "V", "S")]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "system",
    [
        "x-anthropic-billing-header: cc_version=2.1.77.abc; cch=00000;\nBe kind.",
        [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=1;"},
            {"type": "text", "text": "Be kind."},
        ],
        "Be kind.",
        [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    ],
)
async def test_the_attribution_line_is_no_part_of_the_prompt(system: object) -> None:
    """It differs in every request, so that nothing behind it could be cached."""
    async with running(fake_engine(), served_model(mistral_metadata())) as here:
        await ask(here, system=system)
        assert mistral_text(here) == 'Be kind.{"reasoning_effort": "none"}Hi'


async def test_words_about_the_line_stay() -> None:
    async with running(fake_engine(), served_model(mistral_metadata())) as here:
        await ask(here, system="Explain x-anthropic-billing-header: to me")
        assert "x-anthropic-billing-header" in mistral_text(here)


async def test_tokens_are_counted_as_they_will_be(here: Here) -> None:
    counted = await here.client.post("/v1/messages/count_tokens", json={"messages": HI, "system": "S"})
    body = await ask(here, system="S")
    assert counted.json() == {"input_tokens": body["usage"]["input_tokens"]}


@pytest.mark.parametrize("header", [{"x-api-key": "K"}, {"authorization": "Bearer K"}])
async def test_either_header_carries_the_key(header: Mapping[str, str]) -> None:
    async with running(fake_engine(), api_keys=["K"]) as here:
        body = {"messages": HI, "max_tokens": 10}
        assert (await here.client.post("/v1/messages", json=body, headers=header)).status_code == 200
        refused = await here.client.post("/v1/messages", json=body, headers={"x-api-key": "wrong"})
    assert refused.status_code == 401
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": HI, "system": 5}, "system"),
        ({"messages": HI, "tools": [{"input_schema": {}}]}, "tools.0"),
        ({"messages": HI, "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": HI, "temperature": "hot"}, "temperature"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_errors_have_anthropic_s_shape(here: Here, path: str, body: dict[str, Any], words: str) -> None:
    reply = await here.client.post(path, json={"max_tokens": 5, **body})
    assert reply.status_code == 400
    assert (reply.json()["type"], reply.json()["error"]["type"]) == ("error", "invalid_request_error")
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "max_tokens", "words"),
    [
        ("x" * 5000, 10, "prompt is too long: 5019 tokens > 1024 maximum"),
        ("x", 2000, "input length and `max_tokens` exceed context limit: 20 + 2000 > 1024"),
    ],
)
async def test_too_much_is_said_in_the_words_that_agents_match(
    here: Here, content: str, max_tokens: int, words: str
) -> None:
    messages = [{"role": "user", "content": content}]
    reply = await here.client.post("/v1/messages", json={"messages": messages, "max_tokens": max_tokens})
    assert (reply.status_code, words in reply.json()["error"]["message"]) == (400, True)


async def test_an_error_in_mid_stream_is_the_last_event() -> None:
    async with running(fake_engine(Script(script().steps[:2], error=WorkerDied(-9)))) as here:
        found = await events(here)
    assert found[-1]["type"] == "error"
    assert found[-1]["error"]["type"] == "overloaded_error"
    assert "message_stop" not in [event["type"] for event in found]


async def test_a_tool_that_only_anthropic_can_run_is_named(here: Here) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    reply = await here.client.post("/v1/messages", json={"messages": HI, "max_tokens": 50, "tools": tools})
    assert "web_search" in reply.headers["x-mm35-note"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_is_a_429_with_the_time_to_wait(stream: bool) -> None:
    engine = fake_engine()
    engine.max_waiting = 0
    async with running(engine) as here:
        reply = await here.client.post("/v1/messages", json={"messages": HI, "max_tokens": 5, "stream": stream})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert reply.json()["error"]["type"] == "rate_limit_error"
