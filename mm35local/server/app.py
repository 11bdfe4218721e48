"""Puts the server together: routes, error mapping and guard around one engine and its model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mm35local import __version__
from mm35local.engine.api import Engine
from mm35local.server import chat_completions, info, problems
from mm35local.server.model import ServedModel
from mm35local.server.security import LOOPBACK_HOSTS, Guard
from mm35local.server.service import Service


def create_app(
    engine: Engine,
    model: ServedModel,
    *,
    api_key: str | None = None,
    hosts: frozenset[str] | None = LOOPBACK_HOSTS,
) -> FastAPI:
    """The ASGI application. Its lifespan starts the engine (without waiting for the weights) and closes it.

    `hosts` are the names under which a request may call the server; None, for any, belongs with an `api_key`.
    """
    service = Service(engine, model)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        await service.start()
        try:
            yield
        finally:
            await service.aclose()

    # The documentation pages would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="mm35local", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(Guard, api_key=api_key, hosts=hosts)
    problems.install(app)
    app.include_router(chat_completions.router)
    app.include_router(info.router)
    return app
