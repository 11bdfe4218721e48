"""The end of a server that is asked politely: what runs may end, what comes is sent away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from mm35local.server.app import create_app
from mm35local.server.listen import Server, open_socket, quiet_server
from mm35local.server.service import Service
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids
from tests.server.conftest import Here, fake_engine, payloads, port_of, ready, running, script, served_model


async def held_answer(here: Here, service: Service) -> asyncio.Task[int]:
    """An answer that waits until the engine's gate is opened."""
    here.engine.gate.clear()

    async def ask() -> int:
        return (await here.chat()).status_code

    answer = asyncio.create_task(ask())
    async with asyncio.timeout(5):
        while not service.activity.running:
            await asyncio.sleep(0.01)
    return answer


@dataclass(slots=True)
class Saving(FakeEngine):
    """Closes when `is_saved` is set, or at once where it is asked again."""

    is_saved: asyncio.Event = field(default_factory=asyncio.Event)
    is_left: bool = False

    async def aclose(self) -> None:
        is_second = self.is_closed
        await FakeEngine.aclose(self)
        if is_second:
            return
        try:
            await self.is_saved.wait()
        except asyncio.CancelledError:
            self.is_left = True
            raise


def saving(answer: Script | None = None) -> Saving:
    return Saving(lambda prompt: answer or script(), chatml_ids)


@asynccontextmanager
async def serving(engine: Saving) -> AsyncGenerator[tuple[Server, asyncio.Task[None], httpx.AsyncClient]]:
    """On a socket, with the server that gets the signals. It has to have ended when this is left."""
    app, listener = create_app(engine, served_model()), open_socket("127.0.0.1", 0)
    server = quiet_server(app)
    task = asyncio.create_task(server.serve([listener]))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listener)}") as client:
        await client.get("/health")
        await ready(app)
        yield server, task, client
    async with asyncio.timeout(2):
        await task


async def until_closing(engine: Saving) -> None:
    async with asyncio.timeout(2):
        while not engine.is_closed:
            await asyncio.sleep(0.01)


async def test_answers_under_way_end_and_new_ones_are_refused() -> None:
    async with running(fake_engine()) as here:
        service: Service = here.app.state.service
        answer = await held_answer(here, service)
        draining = asyncio.create_task(service.drain(5))
        await asyncio.sleep(0.1)
        refused = await here.chat()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert refused.headers["retry-after"] == "5"
        health = await here.client.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["slots"]["busy"]) == (503, "draining", 1)
        assert not draining.done()
        here.engine.gate.set()
        assert await answer == 200
        async with asyncio.timeout(1):
            await draining


async def test_the_grace_has_an_end() -> None:
    async with running(fake_engine()) as here:
        service: Service = here.app.state.service
        answer = await held_answer(here, service)
        started = time.monotonic()
        await service.drain(0.2)
        assert 0.2 <= time.monotonic() - started < 1
        here.engine.gate.set()
        assert await answer == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_ends_when_conversations_are_saved(number: signal.Signals) -> None:
    engine = saving()
    async with serving(engine) as (server, task, _client):
        server.handle_exit(number, None)
        await until_closing(engine)
        await asyncio.sleep(0.1)
        assert not task.done()
        engine.is_saved.set()
    assert not engine.is_left


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_conversations_are_saved_ends_the_server(
    first: signal.Signals, second: signal.Signals
) -> None:
    engine = saving()
    async with serving(engine) as (server, _task, _client):
        server.handle_exit(first, None)
        await until_closing(engine)
        server.handle_exit(second, None)
    assert engine.is_left


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
async def test_signals_that_do_not_wait_for_answers_still_save(numbers: list[signal.Signals]) -> None:
    engine = saving(Script(script().steps, is_endless=True))
    engine.step_seconds = 0.005
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with serving(engine) as (server, task, client):
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            for number in numbers:
                server.handle_exit(number, None)
                await asyncio.sleep(0.1)
            rest = payloads("\n".join([line async for line in lines]))
        assert "shutting_down" in rest[-2]
        assert not task.done()
        engine.is_saved.set()
    assert not engine.is_left
