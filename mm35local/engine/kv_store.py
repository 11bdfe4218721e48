"""States of sequences that left the KV cells: in RAM first, on disk from a thread, the least recently used given up.

A conversation that goes on takes the place of its own beginning, so a state is written only once it has been in RAM for
a while, once RAM gets short, and at the end: what an agent puts away every turn never touches the disk.

Invariant: what is on disk stays under `disk_bytes`, other models' files in the same folder counted; what is kept in
RAM, beside what is not written yet, stays under `ram_bytes`. A fault of the disk costs the file and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mm35local.engine import kv_file
from mm35local.engine.api import StoreUse
from mm35local.engine.kv_file import Bytes, Int32Array
from mm35local.engine.prefix_cache import num_common

MOST_UNWRITTEN = 4
"""States that RAM has no room for wait for the disk; while there are so many, or one and as many times the bytes that
RAM has for them, further ones are not kept."""
LITTLE_BYTES = 1 << 20
"""May always wait."""
SECONDS_IN_RAM = 30.0
"""So long a state that RAM has room for is not written."""
ABANDONED_SECONDS = 3600.0
"""A file that is written aside for so long is nobody's any more: whose process ended in the midst of it."""
WORTH_SAVING = 64
"""Tokens. Fewer are computed again in the time a file takes."""
HEAD = 32
"""Tokens. States that share fewer with a prompt, and have more, are of no use for it, and told at a glance."""
_NOTHING: Int32Array = np.empty(0, dtype=np.int32)


@dataclass(slots=True, eq=False)
class Saved:
    """One state. `tokens` is empty for a file of another model."""

    tokens: Int32Array
    num_bytes: int
    path: Path
    state: Bytes | None = None
    """Its bytes in RAM; None: only on disk."""
    put_at: float | None = None
    """Of `time.monotonic`, while it waits to be written."""
    is_on_disk: bool = False
    is_lost: bool = False
    """It was given up."""
    head: bytes = field(init=False)
    """Of its first HEAD tokens."""

    def __post_init__(self) -> None:
        self.head = _head(self.tokens)

    @property
    def ram_bytes(self) -> int:
        state = self.state  # which the writer may drop
        return 0 if state is None else len(state)


class KvStore:
    """All methods belong to one thread; only reading and writing are done by others."""

    def __init__(self, folder: Path, mark: bytes, *, disk_bytes: int, ram_bytes: int) -> None:
        """`mark`: the fingerprint of model and context. Raises OSError if the folder cannot be made."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._mark = mark
        self._disk_bytes = disk_bytes
        self._ram_bytes = ram_bytes
        self._saved = self._scan()
        """Least recently used first."""
        self._jobs: queue.Queue[Saved | None] = queue.Queue()
        self._is_urgent = threading.Event()
        """What waits is written at once."""
        self._num_missing_bytes = 0
        """That RAM has no room for: what is written leaves it, until there are none."""
        self._writer = threading.Thread(target=self._write_all, name="kv-store", daemon=True)
        self._writer.start()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="kv-store-reader")
        self._make_room(0)

    @property
    def num_disk_bytes(self) -> int:
        return sum(saved.num_bytes for saved in self._saved)

    @property
    def use(self) -> StoreUse:
        in_ram = [saved.ram_bytes for saved in self._saved if saved.state is not None]
        on_disk = [saved.num_bytes for saved in self._saved if saved.is_on_disk]
        return StoreUse(len(in_ram), sum(in_ram), len(on_disk), sum(on_disk))

    def find(self, tokens: Int32Array) -> tuple[Saved | None, int]:
        """What shares the longest beginning with a prompt, all but its last token, and how long that is.

        It is HEAD tokens, or all that a state has; of several as long the shortest, for a state is read as a whole, and
        of those the most recently used.
        """
        wanted, alike = tokens[:-1], self._alike(tokens[:-1])
        lengths = [(num_common(saved.tokens, wanted), -len(saved.tokens), i) for i, saved in enumerate(alike)]
        length, _, number = max(lengths, default=(0, 0, 0))
        return (alike[number], length) if length else (None, 0)

    def _alike(self, tokens: Int32Array) -> list[Saved]:
        """Those whose first tokens, HEAD of them or as many as there are, are the same."""
        head = _head(tokens)
        return [saved for saved in self._saved if saved.head.startswith(head) or head.startswith(saved.head)]

    def has_ram_for(self, num_bytes: int) -> bool:
        """Would a state of that size stay in RAM, and those that are not written yet with it?"""
        return self._num_unwritten_bytes + num_bytes <= self._ram_bytes

    @property
    def _unwritten(self) -> list[Saved]:
        return [saved for saved in self._saved if saved.put_at is not None]

    @property
    def _num_unwritten_bytes(self) -> int:
        return sum(saved.num_bytes for saved in self._unwritten)

    def accepts(self, tokens: Int32Array, num_bytes: int) -> bool:
        """Would a state of that size be kept? Not one that is kept already."""
        num_unwritten, num_waiting = len(self._unwritten), self._num_unwritten_bytes
        is_behind = num_unwritten >= MOST_UNWRITTEN and num_waiting > self._ram_bytes
        is_behind |= num_unwritten > 0 and num_waiting + num_bytes > max(MOST_UNWRITTEN * self._ram_bytes, LITTLE_BYTES)
        return num_bytes <= self._disk_bytes and not is_behind and not self.covers(tokens)

    def covers(self, tokens: Int32Array) -> bool:
        """Is a state kept that begins with all of these?"""
        return any(num_common(saved.tokens, tokens) == len(tokens) for saved in self._alike(tokens))

    def put(self, tokens: Int32Array, state: Bytes) -> None:
        """Keep it, instead of those that are a beginning of it but for fewer than WORTH_SAVING tokens at their end."""
        tokens = tokens.copy()
        for saved in self._alike(tokens):
            if len(saved.tokens) and len(saved.tokens) - num_common(saved.tokens, tokens) < WORTH_SAVING:
                self._give_up(saved)
        self._make_room(len(state))
        path = self._folder / f"{uuid.uuid4().hex}{kv_file.SUFFIX}"
        saved = Saved(tokens, len(state), path, state, put_at=time.monotonic())
        self._saved.append(saved)
        self._jobs.put(saved)
        self._thin_out()

    def read(self, saved: Saved) -> Future[Bytes | None]:
        """Its state, at once if it is in RAM; None if its file is damaged or gone. `book_read` follows."""
        state = saved.state  # which the writer may drop
        if state is None:
            return self._reader.submit(_read, saved.path, self._mark)
        known: Future[Bytes | None] = Future()
        known.set_result(state)
        return known

    def book_read(self, saved: Saved, state: Bytes | None) -> None:
        """What was read is the most recently used now; what could not be read is given up."""
        if saved.is_lost:
            return
        if state is None:
            self._give_up(saved)
            return
        self._saved.remove(saved)
        self._saved.append(saved)
        saved.state = state
        with contextlib.suppress(OSError):
            os.utime(saved.path)
        self._thin_out()

    def flush(self) -> None:
        """Wait until everything is on disk."""
        self._is_urgent.set()
        self._jobs.join()
        self._thin_out()

    def close(self) -> None:
        """Flush, and end the threads."""
        self._reader.shutdown(cancel_futures=True)
        self._is_urgent.set()
        self._jobs.put(None)
        self._writer.join()

    def _scan(self) -> list[Saved]:
        found: list[tuple[float, Saved]] = []
        kv_file.unlink_abandoned(self._folder, ABANDONED_SECONDS)
        for path in self._folder.glob(f"*{kv_file.SUFFIX}"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                header = kv_file.read_header(path, self._mark)
                tokens = header.tokens if header else _NOTHING
                found.append((stat.st_mtime, Saved(tokens, stat.st_size, path, is_on_disk=True)))
        return [saved for _time, saved in sorted(found, key=lambda pair: pair[0])]

    def _make_room(self, num_bytes: int) -> None:
        while self._saved and self.num_disk_bytes + num_bytes > self._disk_bytes:
            self._give_up(self._saved[0])

    def _thin_out(self) -> None:
        """Forget in RAM what is written and does not fit beside what is not, the least recently used first.

        What takes more than all of RAM's share would leave no room for others, and goes when it is written: it does
        not count. Where too much waits, hurry the disk.
        """
        waiting = [saved.num_bytes for saved in self._unwritten]
        room = self._ram_bytes - sum(num_bytes for num_bytes in waiting if num_bytes <= self._ram_bytes)
        self._num_missing_bytes = max(0, -room)
        for saved in reversed([saved for saved in self._saved if saved.ram_bytes and saved.put_at is None]):
            if saved.ram_bytes <= room:
                room -= saved.ram_bytes
                continue
            saved.state = None
            if not saved.is_on_disk:  # which failed
                self._give_up(saved)
        if sum(waiting) > self._ram_bytes:
            self._is_urgent.set()
        else:
            self._is_urgent.clear()

    def _give_up(self, saved: Saved) -> None:
        saved.is_lost = True
        saved.state = None  # also of one that waits for the disk
        self._saved.remove(saved)
        with contextlib.suppress(OSError):
            saved.path.unlink(missing_ok=True)

    def _write_all(self) -> None:
        while (saved := self._jobs.get()) is not None:
            assert saved.put_at is not None, "it is not written yet"
            self._is_urgent.wait(max(0.0, saved.put_at + SECONDS_IN_RAM - time.monotonic()))
            state = saved.state
            if state is not None and not saved.is_lost:
                self._write(saved, state)
            saved.put_at = None
            del saved, state  # or they would stay until the next one comes
            self._jobs.task_done()

    def _write(self, saved: Saved, state: Bytes) -> None:
        try:
            kv_file.write(saved.path, self._mark, saved.tokens, state)
            saved.is_on_disk = True
            if saved.is_lost:  # given up meanwhile
                saved.path.unlink(missing_ok=True)
            if len(state) > self._ram_bytes:
                saved.state = None
            elif self._num_missing_bytes > 0:
                self._num_missing_bytes -= len(state)
                saved.state = None
        except (OSError, MemoryError) as error:  # it stays in RAM, as long as there is room
            print(f"a KV state could not be saved: {error}", file=sys.stderr)


def _head(tokens: Int32Array) -> bytes:
    return tokens[:HEAD].tobytes()


def _read(path: Path, mark: bytes) -> Bytes | None:
    header = kv_file.read_header(path, mark)
    return kv_file.read_state(path, header) if header else None
