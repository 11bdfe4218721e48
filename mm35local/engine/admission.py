"""Which waiting request starts next, and on what of its prompt: where there is room for all of it.

It changes no books but what it asks for: saved states come back into the cells, and a request remembers whom it awaits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mm35local.engine.fairness import in_turn
from mm35local.engine.images import whole_images
from mm35local.engine.kv_pool import KvPool
from mm35local.engine.prefix_cache import Hit, num_common
from mm35local.engine.request import Request
from mm35local.engine.restorer import Restorer
from mm35local.engine.scheduler import num_reserved

WORTH_WAITING = 32
"""Tokens. A request that starts at once, rather than wait for a beginning that another computes, computes it again."""
Running = Mapping[int, Request]
"""By their ids."""


class Admission:
    def __init__(self, pool: KvPool, restorer: Restorer, *, n_ctx: int, num_slots: int) -> None:
        self._pool = pool
        self._restorer = restorer
        self._n_ctx = n_ctx
        self._num_slots = num_slots

    def next(self, waiting: Sequence[Request], running: Running) -> tuple[Request, Hit] | None:
        """The next to start, clients in turn, and what of it is in the cells; None without a slot, or room for it.

        One whose beginning is being read, or computed for another, lets others pass, to find it in the cells then.
        """
        if not waiting or len(running) >= self._num_slots:
            return None
        for request in in_turn(waiting, running.values()):
            if self._must_wait(request, running):
                continue
            if self._find_with_room(request, running) is None:
                return None
            if self._restorer.is_awaited_by(request):
                continue
            hit = self._find_with_room(request, running)  # once more: what was read is in the cells now
            return None if hit is None else (request, hit)
        return None

    def _must_wait(self, request: Request, running: Running) -> bool:
        """Is more of its prompt, by `WORTH_WAITING` tokens, about to be in the cells than is now?"""
        if request.awaited is not None:
            request_id, num_awaited = request.awaited
            other = running.get(request_id)
            if other is not None and other.num_computed < num_awaited:
                return True
            request.awaited = None
        prompt = request.array[:-1]
        prefilling = [other for other in running.values() if other.num_wanted > WORTH_WAITING]
        shared = [(num_common(other.array[:-1], prompt), other) for other in prefilling]
        num_awaited, other = max(shared, key=lambda pair: pair[0], default=(0, None))
        if other is None or num_awaited < max(self._find(request).num_common, other.num_computed) + WORTH_WAITING:
            return False
        request.awaited = other.request_id, num_awaited
        return True

    def _find(self, request: Request) -> Hit:
        hit = self._pool.find(request.array)
        return Hit(hit.source, whole_images(hit.num_common, request.images))

    def _find_with_room(self, request: Request, running: Running) -> Hit | None:
        """None if not all its tokens fit, beside what the running ones have and will soon need."""
        hit = self._find(request)
        slots = [other.slot for other in running.values() if other.slot is not None]
        num_growing = sum(num_reserved(other) - other.num_computed for other in running.values())
        num_new = num_reserved(request) - hit.num_common
        return hit if self._pool.num_held(slots, hit) + num_growing + num_new <= self._n_ctx else None
