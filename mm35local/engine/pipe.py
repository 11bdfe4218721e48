"""Messages between the engine's two processes: pickled, each behind its length.

The worker's end waits (`Pipe`). The other one is asyncio's (`packed`, `Unpacker`): neither a thread nor a queue stands
between the event loop and the worker, where each would be one more that has to be woken up before a token leaves.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from typing import Any

_HEAD = struct.Struct("!Q")


def packed(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _HEAD.pack(len(body)) + body


class Unpacker:
    """Messages out of bytes, however those are cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[Any]:
        """What is whole now."""
        self._buffer += data
        while (end := self._end_of_first()) is not None:
            message = pickle.loads(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield message

    def _end_of_first(self) -> int | None:
        """None while it is not whole."""
        if len(self._buffer) < _HEAD.size:
            return None
        end = _HEAD.size + int(_HEAD.unpack_from(self._buffer)[0])
        return end if end <= len(self._buffer) else None


class Pipe:
    """One end of a pair of sockets; sending and receiving may be two threads'."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._incoming = end.makefile("rb")

    def send(self, message: object) -> None:
        """Waits while the other end reads nothing. Raises OSError where there is none any more."""
        self._end.sendall(packed(message))

    def recv(self) -> Any:
        """The next message. Raises EOFError or OSError when the other end is gone."""
        return pickle.loads(self._read(_HEAD.unpack(self._read(_HEAD.size))[0]))

    def _read(self, num_bytes: int) -> bytes:
        data = self._incoming.read(num_bytes)
        if len(data) < num_bytes:
            raise EOFError
        return data

    def close(self) -> None:
        self._incoming.close()
        self._end.close()
