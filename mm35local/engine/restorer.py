"""Saved states on their way back: read and checked in a thread, one at a time, put into the cells between two steps.

Invariant: a request waits for at most one state, and once; what cannot be read or finds no room is computed instead.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass

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
    request: Request
    saved: Saved
    state: Future[Bytes | None]

    @property
    def num_wanted(self) -> int:
        """So many tokens the request shares with the state, no image among them in part."""
        return whole_images(num_common(self.saved.tokens, self.request.array), self.request.images)


class Restorer:
    def __init__(self, pool: KvPool, store: KvStore | None) -> None:
        """Without a `store` nobody ever waits."""
        self._pool = pool
        self._store = store
        self._reading: _Reading | None = None

    def is_awaited_by(self, request: Request) -> bool:
        """Is a state that holds more of its prompt than the cells do on its way, or will it be after another one?"""
        self._take_what_is_read()
        if request.is_looked_up or self._store is None:
            return self._reading is not None and self._reading.request is request
        saved = self._pool.restorable(request.array)
        if saved is not None and self._reading is not None:
            return True
        request.is_looked_up = True  # a state that does not help now will not a step later
        if saved is None:
            return False
        self._reading = _Reading(request, saved, self._store.read(saved))
        self._take_what_is_read()
        return self._reading is not None

    def give_up(self, request: Request) -> None:
        """It does not wait any more."""
        if self._reading is not None and self._reading.request is request:
            self._reading = None

    def wait(self) -> None:
        """Up to `SECONDS_TO_WAIT` for what is being read."""
        if self._reading is not None:
            wait([self._reading.state], SECONDS_TO_WAIT)

    def _take_what_is_read(self) -> None:
        reading = self._reading
        if self._store is None or reading is None or not reading.state.done():
            return
        self._reading = None
        state = reading.state.result()
        self._store.book_read(reading.saved, state)
        if state is not None:
            self._pool.restore(reading.saved, state, reading.num_wanted)
