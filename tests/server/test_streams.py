"""What only a real connection shows: when bytes go out, and what a client that hangs up leaves behind."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from mm35local.errors import EngineOverloaded, WorkerDied
from mm35local.server import sse
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids
from tests.server.conftest import fake_engine, listening, payloads, running, script

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
