"""Which tensors of one output are durable: a conversion that was killed goes on after them.

Invariant: a line is appended only when the bytes it vouches for are fsynced. A torn last line is cut off at the next
start. One line is one JSON object: first the fingerprint of the conversion, then a tensor's name and SHA-256 each.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mm35local.errors import ConversionError
from quantize.durable import disk_errors, sync_folder

_FORMAT = 1


class Journal:
    """Holds the lock on an output: two conversions never write the same one."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open or create. Raises ConversionError if it cannot, or if another conversion has it."""
        self.path = path
        self._fingerprint = fingerprint
        with disk_errors(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with ExitStack() as undo:
            undo.callback(os.close, self._fd)
            self._lock()
            self.done = self._read()
            undo.pop_all()

    def start(self) -> None:
        """Forget everything; what follows belongs to this conversion."""
        self.done = {}
        with disk_errors(self.path):
            os.ftruncate(self._fd, 0)
            self._append([{"format": _FORMAT, "conversion": self._fingerprint}])
            sync_folder(self.path.parent)

    def book(self, digests: Mapping[str, str]) -> None:
        """Tensors whose bytes are durable, with their SHA-256."""
        with disk_errors(self.path):
            self._append({"tensor": name, "sha256": digest} for name, digest in digests.items())
        self.done.update(digests)

    def strike(self, names: Iterable[str]) -> None:
        """Tensors that turned out not to be as written."""
        kept = {name: digest for name, digest in self.done.items() if name not in set(names)}
        self.start()
        self.book(kept)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConversionError(
                f"{self.path.with_suffix('.gguf')} is being written by another conversion",
                "wait for it, or use another folder",
            ) from error

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        while text:
            text = text[os.write(self._fd, text) :]
        os.fsync(self._fd)

    def _read(self) -> dict[str, str]:
        """What an earlier run of the same conversion booked; the file is cut after the last whole line."""
        text = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        done, end = _whole_lines(text, self._fingerprint)
        if done and end < len(text):
            with disk_errors(self.path):
                os.ftruncate(self._fd, end)
        return done


def read_journal(path: Path, fingerprint: str) -> dict[str, str]:
    """What the conversion with this fingerprint has booked, SHA-256 by tensor; empty without a journal of its own."""
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    return _whole_lines(text, fingerprint)[0]


def _whole_lines(text: bytes, fingerprint: str) -> tuple[dict[str, str], int]:
    """(SHA-256 by tensor, where the last whole line ends); nothing of another conversion."""
    done: dict[str, str] = {}
    end = 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        entry = _parse(line)
        if entry is None or (number == 0) != ("conversion" in entry):
            break
        if number == 0 and entry != {"format": _FORMAT, "conversion": fingerprint}:
            return {}, 0
        if number:
            done[entry["tensor"]] = entry["sha256"]
        end += len(line)
    return done, end


def _parse(line: bytes) -> dict[str, Any] | None:
    """None for a line that a crash tore."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    is_whole = isinstance(entry, dict) and ("conversion" in entry or {"tensor", "sha256"} <= entry.keys())
    return entry if is_whole else None
