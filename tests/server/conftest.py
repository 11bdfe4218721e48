"""A server on a scripted engine: in this process by ASGI, or on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI

from mm35local.chat.messages import Effort
from mm35local.chat.vocabulary import Vocabulary
from mm35local.engine.api import EngineState
from mm35local.server.app import create_app
from mm35local.server.listen import open_socket, quiet_server
from mm35local.server.model import ServedModel
from mm35local.server.service import Service
from mm35local.types import SamplingParams
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids, chatml_metadata, mistral_metadata

ANSWER = "Hello, wörld 🙂!"
SAMPLING = {
    Effort.NONE: SamplingParams(temperature=0.15),
    Effort.HIGH: SamplingParams(temperature=0.7, top_p=0.95),
}


def script(text: str = ANSWER, per_step: int = 3) -> Script:
    """An answer of `text`, one token a byte."""
    ids = chatml_ids(text)
    return Script(tuple(tuple(ids[i : i + per_step]) for i in range(0, len(ids), per_step)))


def fake_engine(answer: Script | None = None) -> FakeEngine:
    return FakeEngine(lambda prompt: answer or script(), chatml_ids)


def served_model(metadata: Mapping[str, object] | None = None) -> ServedModel:
    return ServedModel(
        id="test-model",
        metadata=metadata or chatml_metadata(),
        size_bytes=1000,
        n_ctx_train=8192,
        sampling=SAMPLING,
        license="Apache-2.0",
        reason="the best that fits",
    )


@dataclass(frozen=True, slots=True)
class Here:
    """A running application, the engine behind it, and a client in front of it."""

    app: FastAPI
    engine: FakeEngine
    client: httpx.AsyncClient
    url: str

    async def chat(self, content: object = "Hi", **body: object) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return await self.client.post("/v1/chat/completions", json={"messages": messages, **body})


async def ready(app: FastAPI) -> None:
    """Until the dialect is loaded, which a thread does. Does not wait for the engine."""
    service: Service = app.state.service
    while service.engine.status.state is EngineState.READY and service.status.state is EngineState.LOADING:
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    engine: FakeEngine, model: ServedModel | None = None, *, api_keys: Sequence[str] = (), origins: Sequence[str] = ()
) -> AsyncGenerator[Here, None]:
    """In this process, without a socket."""
    app = create_app(engine, model or served_model(), api_keys=api_keys, origins=origins)
    url = "http://127.0.0.1:8080"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url) as client,
    ):
        await ready(app)
        yield Here(app, engine, client, url)


@asynccontextmanager
async def listening(
    engine: FakeEngine, model: ServedModel | None = None, *, api_keys: Sequence[str] = ()
) -> AsyncGenerator[Here, None]:
    """On a socket, as a user runs it."""
    app = create_app(engine, model or served_model(), api_keys=api_keys)
    listener = open_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port_of(listener)}"
    server = quiet_server(app)
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            await client.get("/health")
            await ready(app)
            yield Here(app, engine, client, url)
    finally:
        server.handle_exit(15, None)
        await task


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def mistral_text(here: Here) -> str:
    """The last prompt of a Mistral model, without its control tokens."""
    vocabulary = Vocabulary.from_metadata(mistral_metadata(), "x")
    return b"".join(map(vocabulary.token_bytes, here.engine.records[-1].prompt.token_ids)).decode()


def payloads(stream: str) -> list[str]:
    """The data of an event stream, one string an event."""
    return [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]


@pytest.fixture
async def here() -> AsyncGenerator[Here, None]:
    async with running(fake_engine()) as running_app:
        yield running_app
