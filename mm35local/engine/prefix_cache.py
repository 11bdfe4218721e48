"""Slots that nobody runs in: empty ones, and ended sequences whose KV cells are worth keeping.

A new prompt continues in the slot that shares the longest beginning with it, compared token by token. Invariant: a
slot is either here or held by exactly one running request; `num_cells` is what the sequences here occupy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]

_NOTHING: Int32Array = np.empty(0, dtype=np.int32)

TOKENS_LOST_PER_TOKEN_SAVED = 8
"""A hit cuts the cached sequence's own tail. It is taken while it loses at most this many for each token it saves:
a next turn whose thinking was dropped still hits, a new chat does not wipe out a long one for a shared greeting."""


class PrefixCache:
    """Books only: whoever takes or evicts must trim the backend accordingly."""

    def __init__(self, num_slots: int) -> None:
        self._sequences: dict[int, Int32Array] = dict.fromkeys(range(num_slots), _NOTHING)
        """Least recently used first, the empty ones before all."""
        self.num_cells = 0

    @property
    def has_slot(self) -> bool:
        return bool(self._sequences)

    def take(self, tokens: Sequence[int]) -> tuple[int, int]:
        """Choose a slot for `tokens` and give it away: (slot, number of leading tokens it already holds).

        At least the last token is never counted as held: it must be computed to know what follows.
        """
        wanted = np.asarray(tokens[:-1], dtype=np.int32)
        common = {slot: _num_common(cached, wanted) for slot, cached in self._sequences.items()}
        gain = {slot: TOKENS_LOST_PER_TOKEN_SAVED * n - (len(self._sequences[slot]) - n) for slot, n in common.items()}
        best = max(gain, key=lambda slot: gain[slot])
        slot = best if gain[best] > 0 else next(iter(self._sequences))
        self.num_cells -= len(self._sequences.pop(slot))
        return slot, common[slot]

    def put(self, slot: int, tokens: Sequence[int]) -> None:
        """Give a slot back, holding the cells of `tokens`: the most recently used one, or just an empty one."""
        assert slot not in self._sequences, "a slot has one owner"
        if tokens:
            self._sequences[slot] = np.asarray(tokens, dtype=np.int32)
            self.num_cells += len(tokens)
        else:
            self._sequences = {slot: _NOTHING, **self._sequences}

    def evict(self) -> int | None:
        """Empty the least recently used sequence: its slot, or None when there is nothing to evict."""
        slot = next((slot for slot, cached in self._sequences.items() if len(cached)), None)
        if slot is not None:
            self.num_cells -= len(self._sequences.pop(slot))
            self.put(slot, ())
        return slot


def _num_common(left: Int32Array, right: Int32Array) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
