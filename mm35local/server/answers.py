"""The one way from turns to an HTTP answer, whatever the wire: streamed or in one piece, one choice or several.

Invariant: a wire only translates; a `Writer` is fed the same events for a stream as for an answer in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from mm35local.chat.turn import Done, Ends, Turn, TurnEvent
from mm35local.server.sse import Closing, Ending, EventStream, Opening, unless_gone

_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is left to read it

Events = AsyncGenerator[TurnEvent, None]


class Writer(Ending, Protocol):
    """Tells one answer in a wire's words."""

    def take(self, index: int, event: TurnEvent) -> Iterator[bytes]:
        """The frames for an event of choice `index`."""
        ...

    def whole(self) -> dict[str, Any]:
        """The answer in one piece, after every choice's last event."""
        ...


async def respond(
    request: Request,
    choices: Sequence[Events],
    writer: Writer,
    *,
    streams: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    frames = _frames(choices, writer)
    if streams:
        return EventStream(frames, writer, headers)
    if await unless_gone(request.receive, _to_the_end(frames)) is None:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    return JSONResponse(writer.whole(), headers=dict(headers or {}))


def with_own_seeds(turn: Turn, n: int) -> list[Turn]:
    """`n` times the same turn; where a seed is given, each has another one, so that the answers differ."""
    seed = turn.params.seed
    if seed is None:
        return [turn] * n
    return [replace(turn, params=replace(turn.params, seed=(seed + i) % 0xFFFFFFFF)) for i in range(n)]


async def _frames(choices: Sequence[Events], writer: Writer) -> AsyncGenerator[bytes, None]:
    pieces = _Pieces(writer, len(choices))
    if len(choices) == 1:
        async with aclosing(choices[0]) as events:
            async for event in events:
                if data := pieces.take(0, event):
                    yield data
        return
    async with aclosing(_together(choices)) as numbered:
        async for index, event in numbered:
            if data := pieces.take(index, event):
                yield data


class _Pieces:
    """All frames of an event in one piece: each that leaves wakes up the client."""

    def __init__(self, writer: Writer, num_choices: int) -> None:
        self._writer = writer
        self._going_on = set(range(num_choices))
        """Choices whose end does not come at once: while there are any, nothing waits for the end of all."""

    def take(self, index: int, event: TurnEvent) -> bytes:
        frames = list(self._writer.take(index, event))
        data = b"".join(frames)
        if isinstance(event, Ends | Done):
            self._going_on.discard(index)
        if not self._going_on:
            return Closing(data)
        return Opening(data) if all(isinstance(frame, Opening) for frame in frames) else data


async def _together(choices: Sequence[Events]) -> AsyncGenerator[tuple[int, TurnEvent], None]:
    """The events of all as they come. The first error ends them all."""
    queue: asyncio.Queue[tuple[int, TurnEvent] | asyncio.Task[None]] = asyncio.Queue()

    async def pump(index: int, events: Events) -> None:
        async with aclosing(events):
            async for event in events:
                queue.put_nowait((index, event))

    tasks = [asyncio.create_task(pump(index, events)) for index, events in enumerate(choices)]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    try:
        num_open = len(tasks)
        while num_open:
            item = await queue.get()
            if isinstance(item, asyncio.Task):
                item.result()
                num_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _to_the_end(frames: AsyncGenerator[bytes, None]) -> bool:
    async with aclosing(frames):
        async for _ in frames:
            pass
    return True
