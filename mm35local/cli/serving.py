"""Runs the server and tells the terminal how loading goes; a model that cannot be loaded ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys

from fastapi import FastAPI

from mm35local.cli.console import byte_progress
from mm35local.engine.api import Engine, EngineInfo, EngineState
from mm35local.engine.measured import compare
from mm35local.engine.threads import SHORT_SLICE, ask_for_slices
from mm35local.errors import Mm35Error
from mm35local.server.listen import Server, quiet_server

_POLL_SECONDS = 0.1


def run_server(app: FastAPI, engine: Engine, listener: socket.socket, num_bytes: int) -> None:
    """Until SIGINT or SIGTERM. `num_bytes` are the file's. Raises what kept the model from loading the first time."""
    ask_for_slices(SHORT_SLICE)
    asyncio.run(_run(app, engine, listener, num_bytes))


class _OneLine(logging.Formatter):
    """Words of clients stand in messages: none of them may move the terminal's cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in line)


def log_requests(*, is_quiet: bool) -> None:
    """A line for each answer and each refusal, on stderr: who serves agents wants to see what they do.

    `is_quiet`: only what is odd.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s  %(message)s", "%H:%M:%S"))
    log = logging.getLogger("mm35local.server")
    log.addHandler(handler)
    log.setLevel(logging.WARNING if is_quiet else logging.INFO)
    log.propagate = False


async def _run(app: FastAPI, engine: Engine, listener: socket.socket, num_bytes: int) -> None:
    server = quiet_server(app)
    watching = asyncio.create_task(_watch_loading(server, engine, listener, num_bytes))
    try:
        await server.serve([listener])
    finally:
        watching.cancel()
    error = (await asyncio.gather(watching, return_exceptions=True))[0]
    if isinstance(error, Mm35Error):
        raise error


async def _watch_loading(server: Server, engine: Engine, listener: socket.socket, num_bytes: int) -> Mm35Error | None:
    """The error that kept the model from loading, after telling the server to end; None once it is loaded."""
    with byte_progress("loading") as progress:
        while (status := engine.status).state is EngineState.LOADING:
            progress(round(status.progress * num_bytes), num_bytes)
            await asyncio.sleep(_POLL_SECONDS)
    if server.should_exit:
        return None  # ended by a signal while it loaded
    if status.state is EngineState.FAILED:
        server.handle_exit(signal.SIGTERM, None)
        return status.error
    gc.freeze()  # what is there now stays: to go through it for garbage takes some 50 ms, in the middle of an answer
    if status.info:
        _warn(status.info)
    host, port = listener.getsockname()[:2]
    seconds = status.info.load_seconds if status.info else 0.0
    print(f"ready in {seconds:.1f} s: http://{f'[{host}]' if ':' in host else host}:{port}/v1", file=sys.stderr)
    return None


def _warn(info: EngineInfo) -> None:
    """What is not as it was planned."""
    if info.changed:
        print(f"WARNING: memory was short: loaded with {info.changed}", file=sys.stderr)
    for measured in compare(info.planned, info.buffers):
        if measured.is_off:
            print(measured, file=sys.stderr)
