"""Reads the numbers and strings of a GGUF header from an open file, within bounds and budgets.

Invariant: nothing is allocated because a number in the file says so: every length is first held against the bytes that
are left and against a budget that a real header stays far below. Read, not mapped: a file that shrinks meanwhile gives
an error instead of a SIGBUS.
Format: the GGUF specification in ggml's docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from mm35local.errors import ModelFileError

MAX_HEADER_BYTES = 64 << 20
"""Four times the header of the largest vocabulary in use (262,144 tokens with merges)."""
MAX_ELEMENTS = 4_000_000
"""Of all arrays together; each becomes a Python object."""
_FIRST_READ_BYTES = 1 << 20
_SCALARS = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_STRING = 8
_ARRAY = 9
_LEAST_STRING_BYTES = 8


class Cursor:
    """`at` is the offset of the next byte; every method that reads raises ModelFileError with it."""

    def __init__(self, path: Path, fd: int, file_bytes: int) -> None:
        self.path = path
        self.at = 0
        self._fd = fd
        self._file_bytes = file_bytes
        self._data = bytearray()
        """What was read so far, from the start of the file."""
        self._elements_left = MAX_ELEMENTS

    def fail(self, problem: str, hint: str = "", offset: int | None = None) -> ModelFileError:
        return ModelFileError(str(self.path), problem, hint, self.at if offset is None else offset)

    def take(self, num_bytes: int, what: str) -> bytes:
        at = self._advance(num_bytes, what)
        return bytes(self._data[at : at + num_bytes])

    def u32(self, what: str) -> int:
        at = self._advance(4, what)
        return int(_U32.unpack_from(self._data, at)[0])

    def u64(self, what: str) -> int:
        at = self._advance(8, what)
        return int(_U64.unpack_from(self._data, at)[0])

    def name(self, what: str, max_bytes: int) -> str:
        """A key or a tensor's name: UTF-8, of at most `max_bytes`."""
        num_bytes = self.u64(what)
        if num_bytes > max_bytes:
            raise self.fail(f"{what} of {num_bytes} bytes, expected at most {max_bytes}")
        raw = self.take(num_bytes, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} {raw[:40]!r} is not UTF-8") from error

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self.fail(f"key {key} has the unknown value type {kind}")
        scalar = _SCALARS[kind]
        at = self._advance(scalar.size, key)
        return scalar.unpack_from(self._data, at)[0]

    def check_count(self, count: int, least_bytes_each: int, what: str) -> None:
        """Could so many things of at least so many bytes follow?"""
        left = min(self._file_bytes, MAX_HEADER_BYTES) - self.at
        if count * least_bytes_each > left:
            raise self.fail(f"{what}: {count} cannot fit in the {left} bytes that a header has left here")

    def _string(self, what: str) -> str:
        num_bytes = self.u64(what)
        at = self._advance(num_bytes, what)
        return self._data[at : at + num_bytes].decode("utf-8", "replace")

    def _array(self, key: str) -> list[Any]:
        kind, count = self.u32(key), self.u64(key)
        if kind != _STRING and kind not in _SCALARS:
            raise self.fail(f"key {key} is an array of type {kind}, expected scalars or strings")
        least = _LEAST_STRING_BYTES if kind == _STRING else _SCALARS[kind].size
        self.check_count(count, least, f"array {key}")
        self._elements_left -= count
        if self._elements_left < 0:
            raise self.fail(f"array {key} of {count}: more than {MAX_ELEMENTS} values in all arrays together")
        if kind == _STRING:
            return [self._string(key) for _ in range(count)]
        at = self._advance(count * least, key)
        return list(struct.unpack_from(f"<{count}{_SCALARS[kind].format[1:]}", self._data, at))

    def _advance(self, num_bytes: int, what: str) -> int:
        """The offset before; after it, `num_bytes` more are in memory."""
        at, end = self.at, self.at + num_bytes
        if end > len(self._data):
            self._read_to(end, what)
        self.at = end
        return at

    def _read_to(self, end: int, what: str) -> None:
        if end > self._file_bytes:
            raise self.fail(
                f"the file ends inside its header, in {what}: {end - self.at} bytes expected, "
                f"{self._file_bytes - self.at} left"
            )
        if end > MAX_HEADER_BYTES:
            raise self.fail(f"a header beyond {MAX_HEADER_BYTES >> 20} MiB, in {what}")
        wanted = min(max(end, 2 * len(self._data), _FIRST_READ_BYTES), self._file_bytes, MAX_HEADER_BYTES)
        while len(self._data) < wanted:
            chunk = os.pread(self._fd, wanted - len(self._data), len(self._data))
            if not chunk:
                raise self.fail(f"the file became shorter while it was read, in {what}")
            self._data += chunk
