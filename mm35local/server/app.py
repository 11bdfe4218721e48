"""Puts the server together: routes, error mapping and guard around one engine and its model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from mm35local import __version__
from mm35local.engine.api import Engine
from mm35local.server import (
    chat_completions,
    completions,
    health,
    messages,
    models,
    notes,
    openapi,
    problems,
    props,
    refusals,
    responses,
    tokens,
    welcome,
)
from mm35local.server.fetch import Fetcher
from mm35local.server.head import HeadAsGet
from mm35local.server.model import ServedModel
from mm35local.server.security import LOOPBACK_HOSTS, Guard
from mm35local.server.service import Service

_ENDPOINTS = (chat_completions, completions, messages, responses, models, health, props, tokens, refusals, welcome)


def create_app(
    engine: Engine,
    model: ServedModel,
    *,
    api_keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    hosts: frozenset[str] | None = LOOPBACK_HOSTS,
    fetcher: Fetcher | None = None,
) -> FastAPI:
    """The ASGI application. Its lifespan starts the engine (without waiting for the weights) and closes it.

    `hosts` are the names under which a request may call the server; None, for any, belongs with `api_keys`.
    `origins` are the web pages that may use it, "*" for all; without any, no page of another machine may.
    `fetcher` gets the images that requests point to; without one, none of a private network.
    """
    service = Service(engine, model, fetcher)

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
    app.add_middleware(HeadAsGet)
    app.add_middleware(Guard, api_keys=api_keys, hosts=hosts, origins=origins)
    if origins:  # outermost: browsers ask before they send, and without a key
        told = [notes.HEADER, "Retry-After"]
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"], expose_headers=told
        )
    problems.install(app)
    for endpoints in _ENDPOINTS:
        app.include_router(endpoints.router)
    openapi.install(app)
    return app
