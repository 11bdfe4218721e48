"""The chat's link to its server over time: attach, watch, tell of every change, try again for ever.

The watching costs one small request every few seconds; nothing else happens while the link is well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from mm35local.errors import Mm35Error, ServerUnreachable
from mm35local.tui.attach import Launch, ServerHandle, attach
from mm35local.tui.client import ServerClient
from mm35local.tui.events import Health, ModelCard, ServerState

_WATCH_SECONDS = 5.0
_LOADING_SECONDS = 0.5
_RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)
_RELAUNCH_SECONDS = 60.0


class LinkState(StrEnum):
    CONNECTING = "connecting"
    LOADING = "loading"
    READY = "ready"
    LOST = "lost"
    """It answered before, or may answer soon; another try follows by itself."""
    FAILED = "failed"
    """Trying again by itself would fail again; `Connection.wake` tries."""


@dataclass(frozen=True, slots=True)
class Link:
    state: LinkState
    model: ModelCard | None = None
    progress: float = 0.0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    error: Mm35Error | None = None
    retry_seconds: float = 0.0
    num_waiting: int = 0
    cards: tuple[tuple[str, int], ...] = ()


class Connection:
    """Owns the server if it started one; `run` watches until cancelled, `close` stops what was started."""

    def __init__(self, client: ServerClient, api_key: str | None, launch: Launch | None) -> None:
        self.link = Link(LinkState.CONNECTING)
        self.ready = asyncio.Event()
        self._client = client
        self._api_key = api_key
        self._launch = launch
        self._handle: ServerHandle | None = None
        self._launched_at = float("-inf")
        self._num_failures = 0
        self._wake = asyncio.Event()
        self._on_change: Callable[[Link], None] = lambda _link: None

    async def run(self, on_change: Callable[[Link], None]) -> None:
        """`on_change` sees every new state of the link, on this event loop."""
        self._on_change = on_change
        while True:
            pause = await self._look()
            await self._sleep(pause)

    def wake(self) -> None:
        """Look now: the person asked for it, or a request has just failed."""
        if self.link.state is LinkState.LOST and self._handle is not None and self._handle.process is None:
            # A server that was found has gone: look for another, or start one.
            self._handle = None
        self._wake.set()

    async def num_others(self, num_own: int) -> int:
        """Answers that a server which we started gives to others, while it gives us `num_own`; 0 for a found one."""
        if self._handle is None or self._handle.process is None:
            return 0
        try:
            return max(0, (await self._client.health()).num_busy_slots - num_own)
        except Mm35Error:
            return 0

    def let_run(self) -> None:
        """The server that we started goes on without us."""
        if self._handle is not None and self._handle.process is not None:
            self._handle.process.let_run()

    async def close(self) -> None:
        if self._handle is not None:
            await self._handle.close()

    async def _look(self) -> float | None:
        """One look at the server; the seconds until the next, None until `wake`."""
        try:
            health = await self._health()
        except Mm35Error as error:
            return self._failed(error)
        self._num_failures = 0
        self._see(health)
        return _LOADING_SECONDS if health.state is ServerState.LOADING else _WATCH_SECONDS

    async def _health(self) -> Health:
        if self._handle is not None:
            failure = self._handle.failure
            if failure is None:
                return await self._client.health()
            handle, self._handle = self._handle, None
            await handle.close()
            if time.monotonic() - self._launched_at < _RELAUNCH_SECONDS:
                raise failure
            self._tell(Link(LinkState.CONNECTING, self.link.model, error=failure))
        self._launched_at = time.monotonic()
        self._handle = await attach(self._client.url, self._api_key, self._launch, self._see)
        return self._handle.health

    def _see(self, health: Health) -> None:
        model = health.model or self.link.model
        match health.state:
            case ServerState.READY:
                ready = Link(LinkState.READY, model, num_waiting=health.num_waiting, cards=health.cards)
                self._tell(ready)
            case ServerState.LOADING:
                self._tell(Link(LinkState.LOADING, model, health.progress, health.bytes_per_second, health.eta_seconds))
            case ServerState.FAILED:
                self._tell(Link(LinkState.FAILED, model, error=health.error))

    def _failed(self, error: Mm35Error) -> float | None:
        if not isinstance(error, ServerUnreachable):
            self._tell(Link(LinkState.FAILED, self.link.model, error=error))
            return None
        pause = _RETRY_SECONDS[min(self._num_failures, len(_RETRY_SECONDS) - 1)]
        self._num_failures += 1
        self._tell(Link(LinkState.LOST, self.link.model, error=error, retry_seconds=pause))
        return pause

    def _tell(self, link: Link) -> None:
        if link.state is LinkState.READY:
            self.ready.set()
        else:
            self.ready.clear()
        if link != self.link:
            self.link = link
            self._on_change(link)

    async def _sleep(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
