"""Runs the server and tells the terminal how loading goes; a model that cannot be loaded ends it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

from fastapi import FastAPI

from mm35local.cli.console import fraction_progress
from mm35local.engine.api import Engine, EngineState
from mm35local.errors import Mm35Error
from mm35local.server.listen import Server, quiet_server

_POLL_SECONDS = 0.1


def run_server(app: FastAPI, engine: Engine, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM. Raises what kept the model from loading the first time."""
    asyncio.run(_run(app, engine, listener))


async def _run(app: FastAPI, engine: Engine, listener: socket.socket) -> None:
    server = quiet_server(app)
    watching = asyncio.create_task(_watch_loading(server, engine, listener))
    try:
        await server.serve([listener])
    finally:
        watching.cancel()
    error = (await asyncio.gather(watching, return_exceptions=True))[0]
    if isinstance(error, Mm35Error):
        raise error


async def _watch_loading(server: Server, engine: Engine, listener: socket.socket) -> Mm35Error | None:
    """The error that kept the model from loading, after telling the server to end; None once it is loaded."""
    with fraction_progress("loading") as progress:
        while (status := engine.status).state is EngineState.LOADING:
            progress(status.progress)
            await asyncio.sleep(_POLL_SECONDS)
    if status.state is EngineState.FAILED:
        server.handle_exit(signal.SIGTERM, None)
        return status.error
    if status.info and status.info.changed:
        print(f"WARNING: memory was short: loaded with {status.info.changed}", file=sys.stderr)
    host, port = listener.getsockname()[:2]
    seconds = status.info.load_seconds if status.info else 0.0
    print(f"ready in {seconds:.1f} s: http://{f'[{host}]' if ':' in host else host}:{port}/v1", file=sys.stderr)
    return None
