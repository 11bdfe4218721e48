"""Server-sent events: frames while they come, comments while nothing does, and an end that every client understands.

Invariants: the client's going away stops the source at once; whatever happens after the first byte, the stream ends
as its wire's streams end, after an error with that wire's error event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mm35local.server.problems import Problem, problem_of

PING_SECONDS = 10.0
GRACE_SECONDS = 1.0
"""So long an error may still become a plain HTTP answer; then the headers go out."""
COMMENT = b": waiting\n\n"
DONE = b"data: [DONE]\n\n"
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_T = TypeVar("_T")


class Ending(Protocol):
    """What a wire's streams say beside their frames."""

    @property
    def ping(self) -> bytes:
        """Sent while there is nothing to say; clients skip it."""
        ...

    def end(self) -> bytes:
        """After the last frame."""
        ...

    def failed(self, problem: Problem) -> bytes:
        """Instead of the frames that do not come any more, and of `end`."""
        ...


class Opening(bytes):
    """Frames that say no more than that an answer begins: they leave with the next ones, or at the end of the grace."""


class Closing(bytes):
    """Frames that the last answer of a stream ends with: they leave with the end of the stream."""


def frame(payload: Mapping[str, Any], event: str | None = None) -> bytes:
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + _to_json(payload).encode() + b"\n\n"


async def gone(receive: Receive) -> None:
    """Returns when the client has hung up; only after the whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result of `work`, or None if the client hung up first: then it is cancelled."""
    task, hang_up = asyncio.create_task(work), asyncio.create_task(gone(receive))
    try:
        await asyncio.wait({task, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await _stop(task, hang_up)


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """Sends `frames`, which it closes. An error before the first frame is an HTTP answer of its own."""

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[bytes, None], ending: Ending, headers: Mapping[str, str] | None = None
    ) -> None:
        self._frames = frames
        self._ending = ending
        self.background = None
        self.status_code = 200
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = _Wire(send, self.raw_headers)
        pings = asyncio.create_task(self._ping(wire))
        try:
            problem = await unless_gone(receive, problem_of(self._pump(wire)))
        finally:
            await _stop(pings)
            await self._frames.aclose()
        if problem is None:
            return
        if wire.is_open:
            await wire.end(self._ending.failed(problem))
        else:
            await problem.response(scope["path"])(scope, receive, send)

    async def _pump(self, wire: _Wire) -> None:
        async for data in self._frames:
            await wire.write(data)
        await wire.end(self._ending.end())

    async def _ping(self, wire: _Wire) -> None:
        """Opens the stream if nothing came within the grace time, then keeps the line warm."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(GRACE_SECONDS)
        while True:
            idle = loop.time() - wire.written_at
            if not wire.is_open or idle >= PING_SECONDS:
                await wire.write(b"" if wire.holds else self._ending.ping)
                idle = 0.0
            await asyncio.sleep(PING_SECONDS - idle)


class _Wire:
    """One response's way to the client: headers before the first byte, whole frames only."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self._held = b""
        self.is_open = False
        self.written_at = 0.0

    @property
    def holds(self) -> bool:
        """Does something wait to leave?"""
        return bool(self._held)

    async def write(self, data: bytes) -> None:
        if isinstance(data, Closing) or (isinstance(data, Opening) and not self.is_open):
            self._held += data
            return
        await self._leave(data, more_body=True)

    async def end(self, data: bytes) -> None:
        await self._leave(data, more_body=False)

    async def _leave(self, data: bytes, *, more_body: bool) -> None:
        self.written_at = asyncio.get_running_loop().time()
        data, self._held = self._held + data, b""
        if not self.is_open:
            self.is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": more_body})
