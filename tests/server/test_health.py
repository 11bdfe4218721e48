from __future__ import annotations

import asyncio
from dataclasses import replace

from mm35local import __version__
from mm35local.engine.api import Loading
from mm35local.errors import LoadFailed
from tests.fakes.metadata import chatml_metadata
from tests.server.conftest import Here, fake_engine, ready, running, served_model

MODEL = {
    "id": "test-model",
    "n_ctx": 1024,
    "n_ctx_train": 8192,
    "size_bytes": 1000,
    "license": "Apache-2.0",
    "reason": "the best that fits",
    "vision": False,
}


async def test_health_when_ready(here: Here) -> None:
    reply = await here.client.get("/health")
    assert reply.status_code == 200
    assert reply.json() == {
        "status": "ok",
        "server": "mm35local",
        "version": __version__,
        "model": MODEL,
        "slots": {"total": 4, "busy": 0, "waiting": 0},
        "memory": [],
        "restarts": 0,
    }


async def test_health_while_loading_and_what_requests_get_meanwhile() -> None:
    engine = fake_engine()
    engine.loads_at_once = False
    async with running(engine) as here:
        engine.loading(0.42)
        engine.state = replace(engine.state, loading=Loading(0.42, 420, 100.4, 5.8))
        await asyncio.sleep(0.05)
        reply = await here.client.get("/health")
        assert reply.status_code == 503
        body = reply.json()
        assert (body["status"], body["progress"]) == ("loading", 0.42)
        assert (body["loaded_bytes"], body["bytes_per_second"], body["eta_seconds"]) == (420, 100, 5.8)
        assert body["model"] == MODEL | {"n_ctx": None}
        assert body["error"]["code"] == 503
        assert body["error"]["type"] == "unavailable_error"
        for stream in (False, True):
            refused = await here.chat(stream=stream)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert refused.json()["error"]["code"] == "loading"
        engine.load()
        await ready(here.app)
        assert (await here.chat()).status_code == 200


async def test_health_when_the_model_cannot_be_loaded() -> None:
    async with running(fake_engine()) as here:
        here.engine.fail(LoadFailed("x.gguf", "out of memory"))
        body = (await here.client.get("/health")).json()
        assert body["status"] == "failed"
        assert "out of memory" in body["error"]["message"]
        refused = await here.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "load_failed")


async def test_a_model_without_template_fails_in_the_open() -> None:
    metadata = chatml_metadata()
    del metadata["tokenizer.chat_template"]
    async with running(fake_engine(), served_model(metadata)) as here:
        async with asyncio.timeout(5):
            while (body := (await here.client.get("/health")).json())["status"] == "loading":
                await asyncio.sleep(0.01)
        assert body["status"] == "failed"
        assert "no chat template" in body["error"]["message"]
        assert (await here.chat()).status_code == 503
