"""The KV cells as the core uses them: every change is made to the books and to the backend together.

Invariant: each sequence of the backend holds exactly the tokens that `prefix_cache` says, also after a failed step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from mm35local.engine.api import CellUse, StoreUse
from mm35local.engine.backend import Backend
from mm35local.engine.kv_file import Bytes
from mm35local.engine.kv_store import WORTH_SAVING, KvStore, Saved
from mm35local.engine.prefix_cache import Hit, Int32Array, PrefixCache

FEWEST_EVICTED = 256
"""An ended sequence loses its tail in pieces of at least so many cells: its beginning is what is asked for again."""
MOST_BYTES_AHEAD = 1 << 24
"""Of a state that is copied before anybody needs its cells: a request that comes meanwhile waits some 4 ms."""
WORTH_RESTORING = 64
"""Tokens that a saved state must hold beyond what is in the cells. A token's cells load faster than it is computed."""
WORTH_READING = 1 / 8
"""Of a state they must be so much, for it is read as a whole."""


class KvPool:
    def __init__(self, backend: Backend, *, n_ctx: int, store: KvStore | None = None) -> None:
        """With a `store`, what is given up is saved there."""
        self._backend = backend
        self._n_ctx = n_ctx
        self._store = store
        self._num_sequences = backend.num_sequences
        self._cache = PrefixCache(self._num_sequences)

    @property
    def num_used_cells(self) -> int:
        return self._cache.cells.num_used

    @property
    def num_free_cells(self) -> int:
        return self._n_ctx - self.num_used_cells

    @property
    def use(self) -> CellUse:
        cells = self._cache.cells
        return CellUse(
            num_used=cells.num_used,
            num_held=self.num_held(self._cache.running),
            num_spared=sum(map(self._cache.num_tokens, range(self._num_sequences))) - cells.num_used,
            num_shared=cells.num_shared,
            store=self._store.use if self._store else StoreUse(),
        )

    def find(self, tokens: Int32Array) -> Hit:
        """The longest beginning of a prompt that is in the cells; all of it, where it is known what follows."""
        return self._cache.find(tokens, self._backend.keeps_end)

    def take(self, hit: Hit) -> tuple[int, int]:
        """A sequence for the prompt of `hit`, and how many of its tokens that holds already."""
        if hit.source is not None and (self._cache.takes_over(hit) or not self._make_sequence(hit.source)):
            self._cache.resume(hit.source)
            return hit.source, self.trim(hit.source, hit.num_common)
        if hit.source is None:
            self._make_sequence(None)
        sequence = self._cache.open()
        if hit.source is not None:
            num_tokens = self._backend.fork(hit.source, sequence, hit.num_common)
            self._cache.fork(hit.source, sequence, num_tokens)
        return sequence, self._cache.num_tokens(sequence)

    def restorable(self, tokens: Int32Array) -> Saved | None:
        """A saved state that holds more of a prompt than the cells, by as much as it is worth reading for.

        It fits beside what runs.
        """
        saved, num_saved = self._store.find(tokens) if self._store else (None, 0)
        if saved is None:
            return None
        num_more = num_saved - self.find(tokens).num_common
        is_worth_it = num_more >= max(WORTH_RESTORING, WORTH_READING * len(saved.tokens))
        return saved if is_worth_it and self.num_held(self._cache.running) + len(saved.tokens) <= self._n_ctx else None

    def restore(self, saved: Saved, state: Bytes, num_wanted: int) -> None:
        """Put the first `num_wanted` tokens of a saved state into the cells, unless others need them all by now.

        The store keeps the rest: an end that nobody asks for would hold on to all that it shares.
        """
        self.make_room(len(saved.tokens))
        self.thin_out(len(saved.tokens))  # now, so that it lies at the beginning of the cells
        if self.num_used_cells + len(saved.tokens) > self._n_ctx or not self._make_sequence(None):
            return
        sequence = self._cache.open()
        if self._backend.restore(sequence, state, len(saved.tokens)):
            self._cache.append(sequence, saved.tokens.tolist())
            self.trim(sequence, num_wanted)
        self._cache.release(sequence)

    def save_all(self) -> None:
        """Save every ended sequence, the most recently used last."""
        if self._store is None:
            return
        for sequence in self._cache.idle:
            self._save(sequence)
            self._store.flush()

    def append(self, sequence: int, token_ids: Sequence[int]) -> None:
        """A step has put `token_ids` into the backend's sequence."""
        self._cache.append(sequence, token_ids)

    def trim(self, sequence: int, num_tokens: int) -> int:
        """Keep the first `num_tokens`, also of cells that a step left undefined. Returns how many were kept."""
        kept = self._backend.trim(sequence, num_tokens)
        self._cache.trim(sequence, kept)
        return kept

    def release(self, sequence: int) -> None:
        """Its request has left; it stays until somebody needs the cells."""
        for other in self._cache.covered_by(sequence):
            self._forget(other)
        self._cache.release(sequence)

    def num_held(self, sequences: Iterable[int], hit: Hit | None = None) -> int:
        """Cells that `sequences` hold, each counted once, and those of `hit`."""
        known = (hit.source, hit.num_common) if hit is not None and hit.source is not None else None
        return self._cache.cells.num_held(sequences, known)

    def make_room(self, num_cells: int) -> None:
        """Evict until `num_cells` are free, as far as ended sequences can give that many."""
        while (missing := self.num_used_cells + num_cells - self._n_ctx) > 0:
            if not self.evict(missing):
                return

    def thin_out(self, num_new: int) -> None:
        """Leave ended sequences no more cells of their own than the backend passes over in no time, beside those that
        run and `num_new` more; as far as the store keeps their states in RAM.

        One with few cells of its own, an answer that came back otherwise than it was said, loses them: it would keep
        all those that it shares in the cells. One that shares most of its cells for the rest would take many bytes
        there and leave few cells.
        """
        if self._store is None:
            return
        num_running = self.num_held(self._cache.running)
        num_idle = self._backend.most_idle_cells(num_running + num_new)
        if num_idle is None:
            return
        spared: list[int] = []
        while self.num_used_cells - num_running > num_idle:
            victim = self._cache.victim(spared=spared)
            if victim is None:
                return
            if not self._put_away(victim, self._store):
                spared.append(victim)

    def copy_ahead(self) -> None:
        """While nothing runs: copy what ended last into the store's RAM, if another conversation would put it away.

        That one then begins without waiting for the copy. A large state is not copied for a mere chance.
        """
        latest = next(reversed(self._cache.idle), None)
        if self._store is None or latest is None or self._backend.most_idle_cells(0) is None:
            return
        num_own = self._num_own_among_many(latest)
        if num_own >= max(WORTH_SAVING, self._cache.num_tokens(latest) / 2):
            self._copy(latest, self._store, most_bytes=MOST_BYTES_AHEAD)

    def _num_own_among_many(self, sequence: int) -> int:
        """Its cells but for those that it shares with a sequence that has many of its own."""
        others = [other for other in self._cache.idle if other != sequence and self._has_many_own(other)]
        return self.num_held([*others, sequence]) - self.num_held(others)

    def _put_away(self, sequence: int, store: KvStore) -> bool:
        """See `thin_out`. False if it has to stay."""
        is_few = not self._has_many_own(sequence)
        if is_few or (self._is_mostly_own(sequence) and self._copy(sequence, store)):
            self._forget(sequence)
            return True
        return False

    def _has_many_own(self, sequence: int) -> bool:
        return self._cache.cells.num_own(sequence) >= WORTH_SAVING

    def _is_mostly_own(self, sequence: int) -> bool:
        return self._cache.cells.num_own(sequence) >= self._cache.num_tokens(sequence) / 2

    def _copy(self, sequence: int, store: KvStore, *, most_bytes: int | None = None) -> bool:
        """See to it that the store has its state, in RAM if it was not there. False if that has no room for it."""
        if store.covers(self._cache.tokens(sequence)):
            return True
        num_bytes = self._backend.state_bytes(sequence)
        if not store.has_ram_for(num_bytes) or (most_bytes is not None and num_bytes > most_bytes):
            return False
        self._save(sequence, num_bytes)
        return store.covers(self._cache.tokens(sequence))

    def evict(self, num_cells: int) -> bool:
        """Take about `num_cells` from the ended sequence that is missed least. False if there is none."""
        victim = self._cache.victim()
        if victim is None:
            return False
        num_own = self._cache.cells.num_own(victim)
        self._save(victim)
        num_taken = max(num_cells, FEWEST_EVICTED)
        if num_taken < num_own:
            self.trim(victim, self._cache.num_tokens(victim) - num_taken)
        if num_taken >= num_own or not self._cache.num_tokens(victim):
            self._forget(victim)
        return True

    def fault(self) -> str | None:
        """What is wrong with the books, or between them and the backend; None if nothing is."""
        for sequence in range(self._num_sequences):
            booked, held = self._cache.num_tokens(sequence), self._backend.num_tokens(sequence)
            if booked != held:
                return f"sequence {sequence} is booked with {booked} tokens and holds {held}"
        if self.num_used_cells > self._n_ctx:
            return f"{self.num_used_cells} cells are booked of {self._n_ctx}"
        return self._cache.fault(self._num_sequences)

    def clear(self) -> None:
        """Forget everything. Nothing may be running."""
        assert not self._cache.running, "nothing is running"
        for sequence in range(self._num_sequences):
            self._backend.trim(sequence, 0)
        self._cache = PrefixCache(self._num_sequences)

    def _make_sequence(self, spared: int | None) -> bool:
        """See to it that a sequence is free. False if only `spared` could be given up for it."""
        if not self._cache.has_free:
            victim = self._cache.victim(spared=() if spared is None else (spared,))
            if victim is None:
                return False
            self._save(victim)
            self._forget(victim)
        return True

    def _save(self, sequence: int, num_bytes: int | None = None) -> None:
        """Only what is long enough, is not there yet, and has memory. `num_bytes`: of its state, where it is known."""
        tokens = self._cache.tokens(sequence)
        if self._store is None or len(tokens) < WORTH_SAVING:
            return
        if num_bytes is None:
            num_bytes = self._backend.state_bytes(sequence)
        if self._store.accepts(tokens, num_bytes):
            with suppress(OSError, MemoryError):
                self._store.put(tokens, self._backend.save(sequence, num_bytes))

    def _forget(self, sequence: int) -> None:
        self._backend.trim(sequence, 0)
        self._cache.forget(sequence)
