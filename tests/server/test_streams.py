"""What only a real connection shows: when bytes go out, and what a client that hangs up leaves behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping

import httpx
import pytest

from mm35local.errors import EngineOverloaded, WorkerDied
from mm35local.server import sse
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids
from tests.server.conftest import ANSWER, Here, fake_engine, listening, payloads, running, script

BODY = {"messages": [{"role": "user", "content": "Hi"}]}


def endless() -> FakeEngine:
    engine = fake_engine(Script((tuple(chatml_ids("word ")),), is_endless=True))
    engine.step_seconds = 0.005
    return engine


async def until_cancelled(engine: FakeEngine) -> None:
    async with asyncio.timeout(5):
        while not (engine.records and engine.records[-1].is_cancelled):
            await asyncio.sleep(0.005)


async def test_a_client_that_hangs_up_frees_the_engine() -> None:
    engine = endless()
    async with listening(engine) as here:
        async with here.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as reply:
            async for line in reply.aiter_lines():
                if "word" in line:
                    break
        await until_cancelled(engine)
        assert engine.num_running == 0


async def test_also_while_it_waits_and_also_without_a_stream() -> None:
    engine = endless()
    async with listening(engine) as here:
        for stream in (True, False):
            engine.gate.clear()
            with pytest.raises(httpx.ReadTimeout):
                await here.client.post(
                    "/v1/chat/completions", json={**BODY, "stream": stream}, timeout=httpx.Timeout(5, read=0.1)
                )
            await until_cancelled(engine)
            assert len(engine.records) == 1 + (not stream)


async def test_a_waiting_stream_gets_headers_and_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr(sse, "PING_SECONDS", 0.05)
    engine = fake_engine()
    engine.gate.clear()
    async with (
        listening(engine) as here,
        here.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as reply,
    ):
        lines = reply.aiter_lines()
        seen = [await anext(lines) for _ in range(6)]
        engine.gate.set()
        rest = [line async for line in lines]
    assert (reply.status_code, seen) == (200, [": waiting", ""] * 3)
    assert payloads("\n".join(rest))[-1] == "[DONE]"


async def test_what_opens_a_stream_leaves_with_the_first_text() -> None:
    engine = fake_engine()
    engine.step_seconds = 0.05
    async with listening(engine) as here:
        first, *_ = [chunk async for chunk in _chunks(here, "/v1/chat/completions", BODY)]
    deltas = [json.loads(payload)["choices"][0]["delta"] for payload in payloads(first.decode())]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": ANSWER[:3]}]


@pytest.mark.parametrize(
    ("path", "body", "opening"),
    [
        ("/v1/chat/completions", BODY, '"role":"assistant"'),
        ("/v1/messages", {**BODY, "max_tokens": 64}, "event: message_start"),
        ("/v1/responses", {"input": "Hi"}, "event: response.in_progress"),
    ],
)
async def test_it_leaves_alone_where_the_first_text_takes_longer_than_the_grace(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object], opening: str
) -> None:
    monkeypatch.setattr(sse, "GRACE_SECONDS", 0.02)
    engine = fake_engine()
    engine.step_seconds = 0.3
    async with listening(engine) as here:
        chunks = _chunks(here, path, body)
        first = (await anext(chunks)).decode()
        assert not engine.records[0].num_sent
        assert opening in first
        assert ": waiting" not in first
        engine.step_seconds = 0.0
        rest = b"".join([chunk async for chunk in chunks]).decode()
    assert opening not in rest


@pytest.mark.parametrize(
    ("path", "body", "closing"),
    [
        ("/v1/chat/completions", {**BODY, "stream_options": {"include_usage": True}}, ['"stop"', '"usage"', "[DONE]"]),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 64}, ['"stop"', "[DONE]"]),
        ("/v1/messages", {**BODY, "max_tokens": 64}, ["content_block_stop", "message_delta", "message_stop"]),
        ("/v1/responses", {"input": "Hi"}, ["response.output_item.done", "response.completed"]),
    ],
)
async def test_what_ends_a_stream_leaves_with_its_last_words(
    path: str, body: dict[str, object], closing: list[str]
) -> None:
    engine = fake_engine()
    engine.step_seconds = 0.02
    async with listening(engine) as here:
        *_, last = [chunk.decode() async for chunk in _chunks(here, path, body) if chunk]
    places = [last.find(frame) for frame in (f'{ANSWER[-1:]}"', *closing)]
    assert -1 not in places
    assert places == sorted(places)


async def test_each_of_two_choices_ends_once() -> None:
    engine = fake_engine()
    engine.step_seconds = 0.01
    async with listening(engine) as here:
        pieces = [chunk.decode() async for chunk in _chunks(here, "/v1/chat/completions", {**BODY, "n": 2})]
    told = [json.loads(payload) for payload in payloads("".join(pieces)) if payload != "[DONE]"]
    for index in (0, 1):
        own = [choice for chunk in told for choice in chunk["choices"] if choice["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == ANSWER
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["stop"]


async def test_the_end_of_one_choice_waits_for_no_other_that_says_nothing_yet() -> None:
    first, silent = script(), Script(((),), is_endless=True)
    engine = FakeEngine(lambda prompt: first if len(prompt.token_ids) == 2 else silent, chatml_ids)
    engine.step_seconds = 0.01
    async with listening(engine) as here, asyncio.timeout(5):
        chunks = _chunks(here, "/v1/completions", {"prompt": ["Hi", "Hello"], "max_tokens": 64})
        said = ""
        while '"finish_reason":"stop"' not in said:
            said += (await anext(chunks)).decode()
        await chunks.aclose()
    assert "".join(json.loads(payload)["choices"][0]["text"] for payload in payloads(said)) == ANSWER


async def test_progress_that_was_asked_for_does_not_wait() -> None:
    engine = fake_engine()
    engine.step_seconds = 0.3
    async with listening(engine) as here:
        chunks = _chunks(here, "/v1/chat/completions", {**BODY, "return_progress": True})
        assert b"prompt_progress" in await anext(chunks)
        assert not engine.records[0].num_sent
        await chunks.aclose()


async def _chunks(here: Here, path: str, body: Mapping[str, object]) -> AsyncGenerator[bytes, None]:
    """As they were written."""
    async with here.client.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        async for chunk in reply.aiter_raw():
            yield chunk


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", BODY), ("/v1/messages", {**BODY, "max_tokens": 64}), ("/v1/responses", {"input": "Hi"})],
)
async def test_an_error_before_the_first_text_is_an_http_answer_too(path: str, body: dict[str, object]) -> None:
    async with running(fake_engine(Script((), error=WorkerDied(-9)))) as here:
        reply = await here.client.post(path, json={**body, "stream": True})
    assert reply.status_code == 503
    assert "ended with code -9" in reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_event_is_an_http_answer(stream: bool) -> None:
    engine = fake_engine(Script((), error=EngineOverloaded(256)))
    engine.max_waiting = 0
    async with running(engine) as here:
        reply = await here.chat(stream=stream)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    assert reply.json()["error"]["type"] == "rate_limit_error"


async def test_an_error_in_mid_stream_ends_it_as_it_should() -> None:
    steps = script().steps[:2]
    async with running(fake_engine(Script(steps, error=WorkerDied(-9)))) as here:
        reply = await here.chat(stream=True)
    assert reply.status_code == 200
    assert "event: error\ndata: " in reply.text
    *_, error, done = payloads(reply.text)
    assert done == "[DONE]"
    assert json.loads(error)["error"]["code"] == "worker_died"
    assert "ended with code -9" in json.loads(error)["error"]["message"]


async def test_the_same_error_in_one_piece() -> None:
    async with running(fake_engine(Script(script().steps, error=WorkerDied(-9)))) as here:
        reply = await here.chat()
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "worker_died")


async def test_what_nobody_foresaw_is_logged_and_hidden(caplog: pytest.LogCaptureFixture) -> None:
    def broken(prompt: object) -> Script:
        raise KeyError("secret detail")

    async with running(FakeEngine(broken, chatml_ids)) as here:
        reply = await here.chat(stream=True)
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "secret detail" in caplog.text


async def test_eight_streams_at_once_all_end() -> None:
    engine = fake_engine()
    engine.step_seconds = 0.002
    async with listening(engine) as here:

        async def one() -> str:
            return (await here.chat(stream=True)).text

        replies = await asyncio.gather(*(one() for _ in range(8)))
    assert all(payloads(reply)[-1] == "[DONE]" for reply in replies)
    assert not any(record.is_cancelled for record in engine.records)


async def test_closing_the_server_ends_streams_with_an_error() -> None:
    async with (
        listening(endless()) as here,
        here.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as reply,
    ):
        lines = reply.aiter_lines()
        await anext(lines)
        await here.app.state.service.aclose()
        rest = [line async for line in lines]
    assert payloads("\n".join(rest))[-1] == "[DONE]"
    assert any("cut short" in line and "shutting_down" in line for line in rest)
