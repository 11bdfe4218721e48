"""The chat's side of HTTP: `/health`, and one streamed answer as typed events.

Closing the event stream early closes the connection, which is how the server learns that nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from mm35local.tui.address import checked
from mm35local.tui.events import ChatEvent, Health
from mm35local.tui.request import ChatRequest

if TYPE_CHECKING:
    from mm35local.tui.transport import Transport


class ServerClient:
    """Talks to one server; owns its connections, so `aclose` it. What that takes is loaded with the first request."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Raises UsageError if `url` is no http(s) address. A trailing /v1 is fine."""
        self.url = checked(url)
        self._api_key = api_key
        self._transport: Transport | None = None

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def health(self) -> Health:
        """The server's health. Raises ServerUnreachable if nothing answers, ServerError if it is not one of ours."""
        return await (await self._opened()).health()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """The events of one answer, `Ended` (and `Usage`) last.

        Raises ServerError with the server's own words or where the answer breaks off, ServerUnreachable where none
        begins.
        """
        async with contextlib.aclosing((await self._opened()).chat(request)) as events:
            async for event in events:
                yield event

    async def _opened(self) -> Transport:
        if self._transport is None:
            # In a thread: keys are taken meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "mm35local.tui.transport")
            if self._transport is None:
                self._transport = module.Transport(self.url, self._api_key)
        assert self._transport is not None, "it was opened, by this or by another task meanwhile"
        return self._transport
