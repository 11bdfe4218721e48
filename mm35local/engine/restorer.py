"""Saved states on their way back: read and checked in a thread, one at a time, put into the cells between two steps.

Invariant: a request waits for at most one state, and once; what cannot be read or finds no room is computed instead.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from mm35local.engine.images import whole_images
from mm35local.engine.kv_file import Bytes
from mm35local.engine.kv_pool import KvPool
from mm35local.engine.kv_store import KvStore, Saved
from mm35local.engine.prefix_cache import num_common
from mm35local.engine.request import Request

SECONDS_TO_WAIT = 0.01
"""At once, where nothing else is to be done: a cancel is seen after that."""


@dataclass(frozen=True, slots=True)
class _Reading:
    request: Request | None
    """None: whoever waited has left. The next who wants the same state does not begin again."""
    saved: Saved
    state: Future[Bytes | None]

    def is_for_nobody(self, saved: Saved) -> bool:
        """Is it that state, and does nobody wait for it any more?"""
        return self.request is None and self.saved is saved


class Restorer:
    def __init__(self, pool: KvPool, store: KvStore | None) -> None:
        """Without a `store` nobody ever waits."""
        self._pool = pool
        self._store = store
        self._reading: _Reading | None = None

    @property
    def is_reading(self) -> bool:
        """Is there something to `wait` for?"""
        return self._reading is not None

    def is_awaited_by(self, request: Request) -> bool:
        """Is a state that holds more of its prompt than the cells do on its way, or will it be after another one?"""
        self._take_what_is_read()
        if request.is_looked_up or self._store is None:
            return self._reading is not None and self._reading.request is request
        saved = self._pool.restorable(request.array)
        if saved is not None and self._reading is not None and not self._reading.is_for_nobody(saved):
            return True
        request.is_looked_up = True  # a state that does not help now will not a step later
        if saved is None:
            return False
        state = self._reading.state if self._reading is not None else self._store.read(saved)
        self._reading = _Reading(request, saved, state)
        self._take_what_is_read()
        return self._reading is not None

    def give_up(self, request: Request) -> None:
        """It does not wait any more."""
        if self._reading is not None and self._reading.request is request:
            self._reading = replace(self._reading, request=None)

    def wait(self) -> None:
        """Up to `SECONDS_TO_WAIT` for what is being read. What was read for one who left is the store's to keep."""
        if self._reading is not None:
            wait([self._reading.state], SECONDS_TO_WAIT)
            if self._reading.request is None:
                self._take_what_is_read()

    def _take_what_is_read(self) -> None:
        reading = self._reading
        if self._store is None or reading is None or not reading.state.done():
            return
        self._reading = None
        state = reading.state.result()
        self._store.book_read(reading.saved, state)
        if state is not None and reading.request is not None:
            self._pool.restore(reading.saved, state, _num_wanted(reading.request, reading.saved))


def _num_wanted(request: Request, saved: Saved) -> int:
    """So many tokens a request shares with a state, no image among them in part."""
    return whole_images(num_common(saved.tokens, request.array), request.images)
