"""Whatever comes in: a clear 4xx in OpenAI's shape, and the server still answers the next request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mm35local.errors import EngineGivenUp, GrammarFailed, RequestError, WorkerDied
from mm35local.server.chat_request import ChatRequest
from mm35local.server.completions import CompletionRequest
from mm35local.server.messages_request import MessagesRequest
from mm35local.server.parsing import parse
from mm35local.server.problems import to_problem
from mm35local.server.responses_request import ResponsesRequest
from mm35local.server.security import MAX_BODY_BYTES
from mm35local.server.tokens import DetokenizeRequest, TokenizeRequest
from tests.server.conftest import Here, fake_engine, listening, running

MESSAGES = [{"role": "user", "content": "Hi"}]
WRONG = [{"x": 1}] * 20_000
CALLS = {"role": "assistant", "tool_calls": WRONG}


def error_of(reply: Any) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no valid JSON"),
        (b"{", "no valid JSON"),
        (b'{"messages": [}', "no valid JSON"),
        (b"\xff\xfe", "no valid JSON"),
        (b"[]", "should be an object"),
        (b"null", "should be an object"),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "no valid JSON"),
        (b'{"messages": [], "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "no valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}], "x": }', "no valid JSON"),
        (b'{"temperature": NaN, "messages": [{"role": "user", "content": "x"}]}', "temperature"),
    ],
)
async def test_bodies_that_are_no_request(here: Here, body: bytes, message: str) -> None:
    reply = await here.client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert message in error_of(reply)["message"]
    assert (await here.chat()).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "messages.1.tool_calls.0.function",
        ),
        ({"messages": MESSAGES, "temperature": "hot"}, "temperature"),
        ({"messages": MESSAGES, "temperature": -1}, "temperature"),
        ({"messages": MESSAGES, "top_p": 1.5}, "top_p"),
        ({"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ({"messages": MESSAGES, "max_tokens": 10**20}, "max_tokens"),
        ({"messages": MESSAGES, "seed": 10**30}, "seed"),
        ({"messages": MESSAGES, "stop": 5}, "stop"),
        ({"messages": MESSAGES, "stop": ["a"] * 17}, "stop"),
        ({"messages": MESSAGES, "stop": ["a" * 513]}, "stop.0"),
        ({"messages": MESSAGES, "stream": "perhaps"}, "stream"),
        ({"messages": MESSAGES, "reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"messages": MESSAGES, "n": 0}, "n"),
        ({"messages": MESSAGES, "n": 17}, "n"),
        ({"messages": MESSAGES, "tools": [5]}, "tools"),
        ({"messages": MESSAGES, "tools": [{"function": {"name": "a b"}}]}, "tools"),
        ({"messages": MESSAGES, "tools": [{"function": {"name": "f", "parameters": 5}}]}, "tools"),
        ({"messages": MESSAGES, "tools": [{"function": {"name": "f"}}], "tool_choice": "always"}, "tool_choice"),
        ({"messages": MESSAGES, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
        ({"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format"),
        ({"messages": MESSAGES, "logprobs": 5}, "logprobs"),
        ({"messages": MESSAGES, "logit_bias": [1]}, "logit_bias"),
        ({"messages": MESSAGES, "thinking": {"type": "perhaps"}}, "thinking.type"),
    ],
)
async def test_the_wrong_field_is_named(here: Here, body: dict[str, Any], param: str) -> None:
    reply = await here.client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    error = error_of(reply)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert param.split(".")[0].rstrip("s") in error["message"]
    assert here.engine.records == []


@pytest.mark.parametrize(
    ("kind", "body", "field", "num_members"),
    [
        (ChatRequest, {"messages": [*MESSAGES, *WRONG]}, "messages.1.role", 1),
        (ChatRequest, {"messages": [*MESSAGES, CALLS]}, "messages.1.tool_calls.0.function", 1),
        (ChatRequest, {"messages": MESSAGES, "stop": WRONG}, "stop.0", 1),
        (ChatRequest, {"messages": MESSAGES, "logit_bias": {str(i): "x" for i in range(20_000)}}, "logit_bias", 1),
        (MessagesRequest, {"messages": [*MESSAGES, *WRONG]}, "messages.1.role", 1),
        (ResponsesRequest, {"input": "x", "include": WRONG}, "include.0", 1),
        (CompletionRequest, {"prompt": [5, *WRONG]}, "prompt", 4),
        (CompletionRequest, {"prompt": [[5, *WRONG]] * 10}, "prompt", 4),
        (TokenizeRequest, {"content": ["x", *WRONG]}, "content", 3),
        (DetokenizeRequest, {"tokens": [5, *WRONG]}, "tokens.1", 1),
    ],
)
def test_the_first_of_many_wrong_items_ends_the_reading(
    kind: type[BaseModel], body: dict[str, Any], field: str, num_members: int
) -> None:
    """`num_members` of a union that each fail once."""
    with pytest.raises(RequestError) as caught:
        parse(kind, json.dumps(body).encode())
    assert caught.value.field == field
    assert isinstance(caught.value.__cause__, ValidationError)
    assert caught.value.__cause__.error_count() == num_members


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("content", "max_tokens", "numbers"), [("x" * 5000, None, ("1024", "5019")), ("x", 2000, ("1024", "20", "2000"))]
)
async def test_too_much_for_the_context(
    here: Here, stream: bool, content: str, max_tokens: int | None, numbers: tuple[str, ...]
) -> None:
    reply = await here.chat(content, max_tokens=max_tokens, stream=stream)
    assert reply.status_code == 400
    error = error_of(reply)
    assert error["code"] == "context_length_exceeded"
    assert all(number in error["message"] for number in numbers)


async def test_a_body_that_is_too_long(here: Here) -> None:
    async def endless() -> Any:
        for _ in range(MAX_BODY_BYTES // (1 << 20) + 1):
            yield b" " * (1 << 20)

    for content in (b" " * (MAX_BODY_BYTES + 1), endless()):
        reply = await here.client.post("/v1/chat/completions", content=content)
        assert reply.status_code == 413
        assert "64 MiB" in error_of(reply)["message"]


async def test_paths_and_methods_that_do_not_exist(here: Here) -> None:
    error = error_of(await here.client.get("/v1/nothing"))
    assert (error["type"], "GET / lists" in error["message"]) == ("not_found_error", True)
    reply = await here.client.get("/v1/chat/completions")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert "this path takes POST" in error_of(reply)["message"]


@pytest.mark.parametrize("path", ["/v1/v1/chat/completions", "/api/v1/chat/completions"])
async def test_a_wrong_base_url_is_told(here: Here, path: str) -> None:
    reply = await here.client.post(path, json={"messages": MESSAGES})
    assert (reply.status_code, "/v1/chat/completions is meant?" in error_of(reply)["message"]) == (404, True)


async def test_null_is_as_if_it_were_left_out(here: Here) -> None:
    names = [name for name in ChatRequest.model_fields if name != "messages"]
    assert (await here.chat(**dict.fromkeys(names))).status_code == 200
    assert (await here.chat(stream=True, stream_options={"include_usage": None})).status_code == 200


async def test_a_client_that_hangs_up_in_its_body_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(fake_engine()) as here:
        _, writer = await asyncio.open_connection("127.0.0.1", int(here.url.rpartition(":")[2]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await writer.wait_closed()
        assert (await here.chat()).status_code == 200
    assert "nobody foresaw" not in caplog.text


def test_a_grammar_that_nothing_can_follow_is_the_client_s() -> None:
    problem = to_problem(GrammarFailed("NoExtensionBias"))
    assert (problem.status, problem.code) == (400, "grammar_failed")


def test_an_engine_that_is_given_up_is_not_worth_another_try() -> None:
    died, given_up = to_problem(WorkerDied(-9)), to_problem(EngineGivenUp(-9, "out of memory", 5))
    assert (died.status, died.code, died.headers) == (503, "worker_died", {"Retry-After": "2"})
    assert (given_up.status, given_up.code, given_up.headers) == (503, "engine_failed", {})
    assert "out of memory; it ended 5 times in a row" in given_up.message
    assert given_up.message.endswith("start the server again")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("stop", "temperature", "max_tokens", "seed", "tools", "n", "stream_options", "reasoning", "model")
ODD_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant", "tool"]), "content": JSON}),
    max_size=4,
)
BODIES = st.fixed_dictionaries(
    {"messages": JSON | st.just(MESSAGES) | ODD_MESSAGES}, optional=dict.fromkeys(FIELDS, JSON)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BODIES, max_size=8))
def test_no_json_at_all_makes_the_server_fail(bodies: list[Any]) -> None:
    async def send() -> list[int]:
        async with running(fake_engine()) as here:
            replies = [await here.client.post("/v1/chat/completions", content=json.dumps(body)) for body in bodies]
            return [reply.status_code for reply in replies]

    assert set(asyncio.run(send())) <= {200, 400}
