"""The tokens of every sequence in the KV cells, running or ended, and which of them give way.

A new prompt goes on from the sequence that shares the longest beginning with it, compared token by token: it takes
over one that is shared to its end and that nobody runs, else it forks, which costs no cells. Invariant: a sequence is
free, idle, or held by exactly one running request. Books only: `kv_pool` does the same to the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mm35local.engine.cells import CellTree

Int32Array = npt.NDArray[np.int32]

TOKENS_OF_DOUBLE_COST = 16384
"""Recomputing a token at this position costs about twice one at the start: attention looks at all before it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """The first `num_common` tokens of a prompt are in `source`."""

    source: int | None
    num_common: int


@dataclass(slots=True)
class _Record:
    """`tokens[:num_tokens]` are in the cells."""

    tokens: Int32Array = field(default_factory=lambda: np.empty(64, dtype=np.int32))
    num_tokens: int = 0
    last_used: int = 0
    is_running: bool = False

    @property
    def known(self) -> Int32Array:
        return self.tokens[: self.num_tokens]

    def ends_at(self, num_tokens: int) -> bool:
        """Idle, and not longer."""
        return not self.is_running and self.num_tokens == num_tokens

    def append(self, token_ids: Sequence[int]) -> None:
        end = self.num_tokens + len(token_ids)
        if end > len(self.tokens):
            grown = np.empty(2 * end, dtype=np.int32)
            grown[: self.num_tokens] = self.known
            self.tokens = grown
        self.tokens[self.num_tokens : end] = token_ids
        self.num_tokens = end


class PrefixCache:
    def __init__(self, num_sequences: int) -> None:
        self.cells = CellTree()
        self._free = list(range(num_sequences))[::-1]
        self._records: dict[int, _Record] = {}
        self._clock = 0

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    @property
    def running(self) -> list[int]:
        return [sequence for sequence, record in self._records.items() if record.is_running]

    @property
    def idle(self) -> list[int]:
        """Least recently used first."""
        idle = [sequence for sequence, record in self._records.items() if not record.is_running]
        return sorted(idle, key=lambda sequence: self._records[sequence].last_used)

    def num_tokens(self, sequence: int) -> int:
        record = self._records.get(sequence)
        return record.num_tokens if record else 0

    def tokens(self, sequence: int) -> Int32Array:
        """i32[num_tokens], a view that the next change may invalidate."""
        return self._records[sequence].known

    def find(self, tokens: Int32Array, keeps_end: Callable[[int, int], bool] = lambda _sequence, _n: False) -> Hit:
        """Where the longest beginning of `tokens` is; on a tie an idle sequence that ends there, then the newest.

        The last token counts only where `keeps_end(sequence, len(tokens))` says that it is known what follows: else it
        must be computed.
        """
        usable = {sequence: self._num_usable(sequence, tokens, keeps_end) for sequence in self._records}
        best = max(usable, key=lambda sequence: self._rank(sequence, usable[sequence]), default=None)
        return Hit(best, usable[best]) if best is not None and usable[best] else Hit(None, 0)

    def _rank(self, sequence: int, num_usable: int) -> tuple[int, bool, int]:
        record = self._records[sequence]
        return num_usable, record.ends_at(num_usable), record.last_used

    def _num_usable(self, sequence: int, tokens: Int32Array, keeps_end: Callable[[int, int], bool]) -> int:
        length = num_common(self._records[sequence].known, tokens)
        return length if length < len(tokens) or keeps_end(sequence, length) else length - 1

    def takes_over(self, hit: Hit) -> bool:
        """Does the prompt go on exactly where an idle sequence ends?"""
        record = self._records.get(hit.source) if hit.source is not None else None
        return record is not None and record.ends_at(hit.num_common)

    def resume(self, sequence: int) -> None:
        """An idle sequence is run again."""
        self._touch(sequence).is_running = True

    def open(self) -> int:
        """A free sequence, run from now on."""
        sequence = self._free.pop()
        self._records[sequence] = _Record(is_running=True)
        self._touch(sequence)
        return sequence

    def fork(self, source: int, target: int, num_tokens: int) -> None:
        """The empty `target` holds the first `num_tokens` of `source`, too."""
        self._touch(source)
        self._records[target].append(self._records[source].tokens[:num_tokens].tolist())
        self.cells.fork(source, target, num_tokens)

    def append(self, sequence: int, token_ids: Sequence[int]) -> None:
        self._records[sequence].append(token_ids)
        self.cells.append(sequence, len(token_ids))

    def trim(self, sequence: int, num_tokens: int) -> None:
        record = self._records[sequence]
        record.num_tokens = min(record.num_tokens, num_tokens)
        self.cells.trim(sequence, num_tokens)

    def release(self, sequence: int) -> None:
        """Nobody runs it any more: idle, or free if it is empty."""
        record = self._touch(sequence)
        record.is_running = False
        if not record.num_tokens:
            self.forget(sequence)

    def forget(self, sequence: int) -> None:
        """It is free, and its cells are but for those that others share."""
        self.cells.trim(sequence, 0)
        del self._records[sequence]
        self._free.append(sequence)

    def covered_by(self, sequence: int) -> list[int]:
        """Idle sequences that are a beginning of this one, and so worth nothing beside it."""
        known = self._records[sequence].known
        return [
            other
            for other, record in self._records.items()
            if other != sequence and not record.is_running and num_common(record.known, known) == record.num_tokens
        ]

    def victim(self, *, spared: Iterable[int] = ()) -> int | None:
        """The idle sequence to give up next; first those that have cells of their own."""
        idle = [s for s, record in self._records.items() if not record.is_running and s not in set(spared)]
        return max(
            idle, key=lambda sequence: (self.cells.num_own(sequence) > 0, self._staleness(sequence)), default=None
        )

    def _staleness(self, sequence: int) -> float:
        """Its age, divided by what one of its own tokens would cost to compute again."""
        record = self._records[sequence]
        middle = record.num_tokens - self.cells.num_own(sequence) / 2
        return (self._clock - record.last_used) / (1 + middle / TOKENS_OF_DOUBLE_COST)

    def _touch(self, sequence: int) -> _Record:
        self._clock += 1
        record = self._records[sequence]
        record.last_used = self._clock
        return record

    def fault(self, num_sequences: int) -> str | None:
        """What contradicts the invariants; None if nothing does."""
        if sorted([*self._free, *self._records]) != list(range(num_sequences)):
            return f"sequences {sorted(self._free)} are free and {sorted(self._records)} in use, of {num_sequences}"
        for sequence, record in self._records.items():
            if record.num_tokens != self.cells.num_tokens(sequence):
                return f"sequence {sequence} has {record.num_tokens} tokens in {self.cells.num_tokens(sequence)} cells"
        return self.cells.fault()


def num_common(left: Int32Array, right: Int32Array) -> int:
    """Length of the common beginning."""
    length = min(len(left), len(right))
    if not length or left[0] != right[0]:
        return 0
    different = left[:length] != right[:length]
    first = int(different.argmax())
    return first if different[first] else length
