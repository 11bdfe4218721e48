"""Guessing by a second, small model that knows the same token ids.

It has a context of its own, with a sequence for each request that runs; what the target confirmed is computed there
when the next guess is asked for, all requests in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mm35local.engine.cpu_kernels import use_extra_buffers
from mm35local.engine.request import Request
from mm35local.engine.speculation import Draft
from mm35local.engine.threads import default_threads
from mm35local.errors import LoadFailed
from mm35local.native.batch import Batch
from mm35local.native.context import CellFormat, Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing

MIN_CHANCE = 0.5
"""A token that the small model itself holds less likely is not guessed."""
MAX_LENGTH = 8
_ALL_LAYERS = 1 << 10


@dataclass(slots=True)
class _Sequence:
    """One request's: the cells hold its first `num_known` tokens, then `guessed` ones."""

    number: int
    num_known: int = 0
    guessed: list[int] = field(default_factory=list)


class DraftModel:
    """A `Drafter`. Requests with images get no guesses: it does not see."""

    def __init__(
        self,
        library: Library,
        path: Path,
        target: Model,
        *,
        n_ctx: int,
        num_slots: int,
        n_batch: int,
        gpu: int | None,
        flash_attention: bool = True,
    ) -> None:
        """All of it on the card `gpu` of this machine, or in RAM: a split would cost a small model more than it gives.

        Raises LoadFailed, also where the vocabularies differ in size; differing texts are only logged.
        """
        placing = Placing(
            0 if gpu is None else _ALL_LAYERS, "none", main_gpu=gpu or 0, use_extra_buffers=use_extra_buffers()
        )
        self._model = Model(library, path, placing)
        threads = default_threads()
        try:
            self._check_vocabulary(target)
            self._context = Context(
                library,
                self._model,
                n_ctx=n_ctx,
                num_sequences=num_slots,
                n_batch=n_batch,
                num_threads=threads.num_decode,
                num_batch_threads=threads.num_batch,
                cells=CellFormat(flash_attention=flash_attention),
            )
        except LoadFailed:
            self._model.close()
            raise
        self._batch = Batch(n_batch)
        self._n_batch = n_batch
        self._free = list(range(num_slots))
        self._sequences: dict[int, _Sequence] = {}

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        guesses: list[list[int]] = [[] for _ in requests]
        limits = [min(limit, MAX_LENGTH) for limit in max_drafts]
        rows = self._catch_up({i: r for i, r in enumerate(requests) if limits[i] and not r.images})
        while rows:
            following: dict[int, int] = {}
            for index, row in rows.items():
                token_id, chance = self._likeliest(row)
                if chance < MIN_CHANCE:
                    continue
                guesses[index].append(token_id)
                if len(guesses[index]) < limits[index]:
                    following[index] = token_id
            rows = self._go_on({i: (requests[i], token_id) for i, token_id in following.items()})
        return [Draft(tuple(guess)) for guess in guesses]

    def close(self, request_id: int) -> None:
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._context.seq_rm(sequence.number, 0)
            self._free.append(sequence.number)

    def shutdown(self) -> None:
        """Free all native memory."""
        self._context.close()
        self._model.close()

    def _check_vocabulary(self, target: Model) -> None:
        if self._model.n_vocab != target.n_vocab:
            detail = (
                f"a draft model needs the vocabulary of the model: {target.n_vocab} tokens, not {self._model.n_vocab}"
            )
            raise LoadFailed(
                str(self._model.path), detail, "take a smaller model of the same family, or leave --draft out"
            )
        pairs = zip(self._model.token_pieces(), target.token_pieces(), strict=True)
        odd = [token_id for token_id, (ours, theirs) in enumerate(pairs) if ours != theirs]
        if odd:
            print(f"{len(odd)} tokens of the draft model have other texts, taken by id all the same: {odd[:8]}")

    def _catch_up(self, requests: Mapping[int, Request]) -> dict[int, int]:
        """Compute what is known of each and not in its cells; the rows of those whose last token was among it."""
        self._batch.clear()
        rows: dict[int, int] = {}
        added: list[tuple[_Sequence, int]] = []
        for index, request in requests.items():
            sequence = self._sequence(request)
            missing = request.tokens[sequence.num_known : sequence.num_known + self._n_batch - self._batch.num_rows]
            if not missing:
                continue
            end = sequence.num_known + len(missing)
            is_last = end == len(request.tokens)
            row = self._batch.add(sequence.number, sequence.num_known, missing, wants_logits=is_last)
            added.append((sequence, end))
            if is_last:
                rows[index] = row
        if not self._decode():
            return {}
        for sequence, end in added:
            sequence.num_known = end
        return rows

    def _go_on(self, guessed: Mapping[int, tuple[Request, int]]) -> dict[int, int]:
        """Compute one guessed token of each; their rows."""
        self._batch.clear()
        rows: dict[int, int] = {}
        for index, (request, token_id) in guessed.items():
            sequence = self._sequences[request.request_id]
            position = sequence.num_known + len(sequence.guessed)
            rows[index] = self._batch.add(sequence.number, position, (token_id,), wants_logits=True)
            sequence.guessed.append(token_id)
        return rows if self._decode() else {}

    def _sequence(self, request: Request) -> _Sequence:
        """The request's, its cells cut back to what the target confirmed, and so that one token is left to compute."""
        sequence = self._sequences.get(request.request_id)
        if sequence is None:
            sequence = self._sequences[request.request_id] = _Sequence(self._free.pop())
        num_held = sequence.num_known + len(sequence.guessed)
        for token_id, confirmed in zip(sequence.guessed, request.tokens[sequence.num_known :], strict=False):
            if token_id != confirmed:
                break
            sequence.num_known += 1
        sequence.guessed.clear()
        sequence.num_known = min(sequence.num_known, len(request.tokens) - 1)
        if sequence.num_known < num_held:
            self._context.seq_rm(sequence.number, sequence.num_known)
        return sequence

    def _decode(self) -> bool:
        """False, and all cells forgotten, where there is no room: guesses are not worth a fight for cells."""
        if not self._batch.num_rows:
            return True
        if self._context.decode(self._batch) == 0:
            return True
        for sequence in self._sequences.values():
            self._context.seq_rm(sequence.number, 0)
            sequence.num_known = 0
            sequence.guessed.clear()
        return False

    def _likeliest(self, row: int) -> tuple[int, float]:
        """The token and its probability, softmax of the logits."""
        logits = self._context.logits(row)
        token_id = int(logits.argmax())
        return token_id, 1.0 / float(np.exp(logits - logits[token_id]).sum())
