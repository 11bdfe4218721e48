"""The page's side of one tab: the chat's process, and its last words where it ends without a farewell."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from textual_serve.app_service import AppService

from mm35local.tui.plain_text import visible

_MAX_WORDS_BYTES = 8192
_CLEAR = "\x1bc"
"""Resets the terminal, whatever was drawn there."""


class _Overheard:
    """A stream of bytes whose reader's end is remembered."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.text = b""

    async def read(self, num_bytes: int) -> bytes:
        data = await self._stream.read(num_bytes)
        self.text = (self.text + data)[-_MAX_WORDS_BYTES:]
        return data


class Tab(AppService):
    _has_left = False

    async def run(self) -> None:
        process = self._process
        assert process is not None
        assert process.stderr is not None
        words = _Overheard(process.stderr)
        process.stderr = words  # type: ignore[assignment]
        await super().run()
        if self._has_left:
            return
        code = await process.wait()
        while await words.read(_MAX_WORDS_BYTES):
            pass
        with suppress(ConnectionError, RuntimeError):  # the browser has gone
            await self.remote_write_bytes(_last_words(words.text, code).encode())

    async def on_meta(self, data: bytes) -> None:
        self._has_left = self._has_left or json.loads(data)["type"] == "exit"
        await super().on_meta(data)


def _last_words(said: bytes, code: int) -> str:
    text = said.decode("utf-8", "replace").strip() or f"its process ended with code {code}, and said nothing"
    lines = ["The chat of this tab has ended:", "", *visible(text).splitlines(), "", "Reload the page to begin again."]
    return _CLEAR + "\r\n".join(lines) + "\r\n"
