"""OpenAI's newer wire: what Codex and its like send, and the events they read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mm35local.errors import WorkerDied
from tests.fakes.engine import Script
from tests.fakes.metadata import mistral_metadata
from tests.server.conftest import ANSWER, Here, fake_engine, mistral_text, running, script, served_model
from tests.server.test_messages import CALL, THINKS

TOOLS = [{"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}]


async def ask(here: Here, given: object = "Hi", **body: object) -> Any:
    reply = await here.client.post("/v1/responses", json={"input": given, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


async def events(here: Here, given: object = "Hi", **body: object) -> list[dict[str, Any]]:
    reply = await here.client.post("/v1/responses", json={"input": given, "stream": True, **body})
    found = []
    for block in reply.text.strip().split("\n\n"):
        name, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        found.append(payload)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


async def test_a_response_in_one_piece(here: Here) -> None:
    body = await ask(here, instructions="S", store=True)
    assert (body["object"], body["status"], body["store"], body["error"]) == ("response", "completed", False, None)
    (item,) = body["output"]
    assert item["type"] == "message"
    assert item["content"] == [{"type": "output_text", "text": ANSWER, "annotations": [], "logprobs": []}]
    assert body["usage"]["output_tokens"] == len(ANSWER.encode())
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]


async def test_the_sequence_of_events(here: Here) -> None:
    found = await events(here)
    kinds = [event["type"] for event in found]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert "".join(event["delta"] for event in found[4:-4]) == ANSWER == found[-4]["text"]
    assert found[-1]["response"]["output"] == [found[-2]["item"]]
    assert found[0]["response"]["output"] == []


async def test_thinking_is_an_item_and_survives_the_way_back() -> None:
    async with running(fake_engine(THINKS), served_model(mistral_metadata())) as here:
        found = await events(here, reasoning={"effort": "high", "summary": "auto"}, store=False)
        reasoning, message = found[-1]["response"]["output"]
        assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
        assert message["content"][0]["text"] == "4"
        assert "response.reasoning_text.delta" in [event["type"] for event in found]
        sealed_only = {"type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"]}
        for item in (reasoning, sealed_only):
            history = [{"role": "user", "content": "U"}, item, message, {"role": "user", "content": "V"}]
            await ask(here, history)
            assert mistral_text(here) == '{"reasoning_effort": "none"}Uhm4V'


async def test_a_call_of_a_tool_and_its_output() -> None:
    async with running(fake_engine(CALL), served_model(mistral_metadata())) as here:
        found = await events(here, tools=TOOLS)
        (call,) = found[-1]["response"]["output"]
        assert (call["type"], call["name"], json.loads(call["arguments"])) == ("function_call", "add", {"a": 1})
        deltas = [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"]
        assert "".join(deltas) == call["arguments"]
        output = {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": [{"type": "input_text", "text": "R"}],
        }
        await ask(here, [{"role": "user", "content": [{"type": "input_text", "text": "U"}]}, call, output], tools=TOOLS)
        assert mistral_text(here).endswith('Uadd{"a": 1}R')


async def test_tools_and_items_that_nobody_knows_are_skipped_with_a_note(here: Here) -> None:
    tools = [{"type": "web_search"}, {"type": "namespace", "name": "mcp", "tools": []}]
    items = [{"type": "web_search_call", "id": "x"}, {"role": "user", "content": "Hi"}]
    reply = await here.client.post("/v1/responses", json={"input": items, "tools": tools})
    assert reply.status_code == 200
    for word in ("web_search", "namespace", "web_search_call"):
        assert word in reply.headers["x-mm35-note"]


@pytest.mark.parametrize("given", ["", []])
async def test_an_empty_probe_gets_an_answer(here: Here, given: object) -> None:
    body = await ask(here, given, max_output_tokens=1)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


async def test_the_end_of_the_tokens_is_an_incomplete_response(here: Here) -> None:
    found = await events(here, max_output_tokens=4)
    assert (found[-1]["type"], found[-1]["response"]["status"]) == ("response.incomplete", "incomplete")
    assert (found[-2]["type"], found[-2]["item"]["status"]) == ("response.output_item.done", "incomplete")
    assert found[-1]["response"]["output"] == [found[-2]["item"]]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"input": "x", "background": True}, "background", "unsupported_parameter"),
        ({"input": "x", "conversation": "c"}, "conversation", "unsupported_parameter"),
        ({"input": 5}, "input", None),
        ({"input": [5]}, "input", None),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0", None),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0", "no_vision"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", None),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools", None),
        ({"input": "x", "text": {"format": {"type": "yaml"}}}, "text.format", None),
        ({"input": "x", "reasoning": {"effort": "extreme"}}, "reasoning.effort", None),
    ],
)
async def test_what_cannot_be_done_is_named(here: Here, body: object, param: str, code: str | None) -> None:
    reply = await here.client.post("/v1/responses", json=body)
    assert (reply.status_code, reply.json()["error"]["param"], reply.json()["error"]["code"]) == (400, param, code)
    assert here.engine.records == []


@pytest.mark.parametrize("field", ['"metadata": {"a": [1e999]}', '"tools": [{"type": "x", "a": -1e999}]'])
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_number_that_no_response_could_repeat_is_refused(here: Here, field: str, stream: str) -> None:
    content = f'{{"input": "x", "stream": {stream}, {field}}}'
    reply = await here.client.post("/v1/responses", content=content)
    assert (reply.status_code, "infinite" in reply.json()["error"]["message"]) == (400, True)
    assert here.engine.records == []


async def test_an_error_in_mid_stream_fails_the_response() -> None:
    async with running(fake_engine(Script(script().steps[:2], error=WorkerDied(-9)))) as here:
        found = await events(here)
    error, failed = found[-2:]
    assert (error["type"], error["code"]) == ("error", "worker_died")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "worker_died"
