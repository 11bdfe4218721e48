"""Server-sent events out of a byte stream.

Lines end at LF or CRLF only: an answer may well contain U+2028 or other characters that text tools call line ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

DONE = b"[DONE]"


async def iter_data(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event, up to and without `[DONE]`; comments and other fields are skipped."""
    data: list[bytes] = []
    async for line in _iter_lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            joined, data = b"\n".join(data), []
            if joined.strip() == DONE:
                return
            yield joined


async def _iter_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest: list[bytes] = []
    async for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        for line in lines:
            yield b"".join((*rest, line)).removesuffix(b"\r")
            rest.clear()
        if tail:
            rest.append(tail)
