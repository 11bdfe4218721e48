"""Holds the port and runs the server on it until a signal ends it.

Invariant: the port is ours before anything is loaded, and idle costs nothing.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from mm35local.errors import PortInUse, ServerError
from mm35local.server.service import Service

_DRAIN_SECONDS = 5
_GRACE_SECONDS = 8.0
"""For answers under way after SIGTERM: who sends it kills after ten seconds, often."""


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises PortInUse, or ServerError for an impossible address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # only a listening socket keeps others, who also reuse addresses, from the port
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from error
        raise ServerError(
            f"cannot listen on {host}:{port}: {error.strerror}", "choose another --host or --port"
        ) from error
    return listener


def quiet_server(app: FastAPI) -> Server:
    """Run it with `await server.serve([listener])`; it ends with SIGINT, SIGTERM or `handle_exit`, and then returns.

    `app` is of `create_app`. SIGTERM lets answers under way end within a grace, while new ones are refused; SIGINT, or
    a second signal, ends them with an error. One that comes while conversations are saved leaves the rest of them.
    """
    config = uvicorn.Config(
        app,
        http="h11",  # httptools, where somebody installed it, is quicker, and takes headers of any size
        log_config=None,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    return Server(config, app.state.service)


class Server(uvicorn.Server):
    """Sleeps until it is told to end, where uvicorn looks ten times a second."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._exit = asyncio.Event()
        self._hurry = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        if not self.should_exit:
            await self._exit.wait()
        await self._until_hurried(self._service.drain(_GRACE_SECONDS))
        self._hurry.clear()
        await self._until_hurried(self._service.aclose())  # so that open streams end now, and as they should
        await self._service.aclose()  # at once now: where a signal came before conversations were saved, they are not

    async def _until_hurried(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, or leave it where a signal comes first."""
        working, hurrying = asyncio.create_task(work), asyncio.create_task(self._hurry.wait())
        await asyncio.wait({working, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, hurrying):
            task.cancel()
        await asyncio.wait({working, hurrying})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Also for callers: asks the server to end."""
        if sig == signal.SIGINT or self._exit.is_set():
            self._hurry.set()
        super().handle_exit(sig, frame)
        self._exit.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals as events of the loop: `serve` returns, where uvicorn would raise the signal again."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
