"""The end of a server that is asked politely: what runs may end, what comes is sent away."""

from __future__ import annotations

import asyncio
import time

from mm35local.server.service import Service
from tests.server.conftest import Here, fake_engine, running


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
