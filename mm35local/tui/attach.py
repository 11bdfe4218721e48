"""Find the server that already runs, or start one and wait for it.

A server that was found is never stopped from here; one that was started belongs to the handle.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import Mm35Error, ServerUnreachable
from mm35local.tui.client import ServerClient
from mm35local.tui.events import Health, ServerState
from mm35local.tui.server_process import ServerProcess

_FIRST_POLL_SECONDS = 0.05
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a server that will answer at `url`; its output goes to the end of `log_path`."""

    argv: tuple[str, ...]
    url: str
    log_path: Path


@dataclass(slots=True)
class ServerHandle:
    """A server that answered READY. `process` is set if we started it."""

    url: str
    health: Health
    process: ServerProcess | None = None

    @property
    def failure(self) -> Mm35Error | None:
        """Why our own server is gone; None while it runs, and always None for a server that was found."""
        if self.process is None or self.process.exit_code is None:
            return None
        return self.process.failure()

    async def close(self) -> None:
        """Stop the server if we started it; safe to call twice."""
        if self.process is not None:
            await self.process.close()


async def attach(
    url: str, api_key: str | None, launch: Launch | None, on_progress: Callable[[Health], None]
) -> ServerHandle:
    """A server that is ready to answer at `url`, or the one that `launch` starts; `on_progress` sees it load.

    Raises ServerUnreachable if none answers and none may be started, ServerError if another program answers, if the
    server's process ends early (with its own words) or if the model cannot be loaded.
    """
    async with contextlib.aclosing(ServerClient(url, api_key)) as client:
        try:
            return ServerHandle(client.url, await _poll(client, None, on_progress))
        except ServerUnreachable:
            if launch is None:
                raise
    return await _start(launch, api_key, on_progress)


async def _start(launch: Launch, api_key: str | None, on_progress: Callable[[Health], None]) -> ServerHandle:
    async with contextlib.AsyncExitStack() as undo:
        client = await undo.enter_async_context(contextlib.aclosing(ServerClient(launch.url, api_key)))
        process = await asyncio.to_thread(ServerProcess, launch.argv, launch.log_path)
        undo.push_async_callback(process.close)
        on_progress(Health(ServerState.LOADING))
        health = await _poll(client, process, on_progress)
        if process.exit_code is not None:
            # Another chat was a moment faster and its server took the port: that one answered, so use it.
            return ServerHandle(client.url, health)
        undo.pop_all()
        await client.aclose()
    return ServerHandle(client.url, health, process)


async def _poll(client: ServerClient, process: ServerProcess | None, on_progress: Callable[[Health], None]) -> Health:
    """Ask until the server is READY. Without a `process` of ours, silence is an answer too."""
    pause = _FIRST_POLL_SECONDS
    while True:
        has_ended = process is not None and process.exit_code is not None
        try:
            health = await client.health()
        except ServerUnreachable:
            if process is None:
                raise
            if has_ended:
                raise process.failure() from None
        else:
            if health.state is ServerState.READY:
                return health
            if health.state is ServerState.FAILED:
                raise health.error or Mm35Error("the server could not load its model", "its log says why")
            on_progress(health)
        await asyncio.sleep(pause)
        pause = min(_POLL_SECONDS, pause * 1.5)
