"""What is added to logits before a token is chosen: biases, and penalties for tokens that have come already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mm35local.types import SamplingParams

Float32Array = npt.NDArray[np.float32]

_MORE = 256
"""Room for so many more tokens is made at once."""


class Change(Protocol):
    """Something that changes logits by what has come."""

    def apply(self, logits: Float32Array) -> None:
        """In place, f32[n_vocab]."""
        ...

    def accept(self, token_id: int) -> None:
        """This token came."""
        ...


def changes_of(params: SamplingParams, prompt: Sequence[int]) -> list[Change]:
    """In the order in which they apply.

    The repetition penalty looks at the prompt and the answer; presence and frequency at the answer alone, as OpenAI's.
    """
    changes: list[Change] = [Bias(params.logit_bias)] if params.logit_bias else []
    if params.repetition_penalty != 1.0:
        changes.append(RepetitionPenalty(params.repetition_penalty, prompt))
    if params.frequency_penalty or params.presence_penalty:
        changes.append(CountPenalty(params.frequency_penalty, params.presence_penalty))
    return changes


class Bias:
    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        self._ids = np.array([token_id for token_id, _ in biases], dtype=np.intp)
        self._biases = np.array([bias for _, bias in biases], dtype=np.float32)

    def apply(self, logits: Float32Array) -> None:
        np.add.at(logits, self._ids, self._biases)

    def accept(self, token_id: int) -> None:
        """It is the same whatever comes."""


class Counts:
    """How often each token came; only those that did take room."""

    def __init__(self, token_ids: Sequence[int] = ()) -> None:
        ids, counts = np.unique(np.array(token_ids, dtype=np.intp), return_counts=True)
        self._size = len(ids)
        self._ids: npt.NDArray[np.intp] = ids
        self._counts: Float32Array = counts.astype(np.float32)
        self._index = {token_id: index for index, token_id in enumerate(ids.tolist())}

    @property
    def ids(self) -> npt.NDArray[np.intp]:
        """intp[n], each once."""
        return self._ids[: self._size]

    @property
    def counts(self) -> Float32Array:
        """f32[n]: of each of `ids`."""
        return self._counts[: self._size]

    def add(self, token_id: int) -> None:
        index = self._index.setdefault(token_id, self._size)
        if index == self._size:
            if index == len(self._ids):
                self._ids = np.concatenate((self._ids, np.empty(_MORE, dtype=np.intp)))
                self._counts = np.concatenate((self._counts, np.empty(_MORE, dtype=np.float32)))
            self._ids[index], self._counts[index] = token_id, 0
            self._size += 1
        self._counts[index] += 1


class RepetitionPenalty:
    """CTRL's (Keskar et al. 2019): logits of what came are divided by it, those below 0 multiplied."""

    def __init__(self, penalty: float, prompt: Sequence[int]) -> None:
        self._penalty = np.float32(penalty)
        self._seen = Counts(prompt)

    def apply(self, logits: Float32Array) -> None:
        ids = self._seen.ids
        known = logits[ids]
        logits[ids] = np.where(known > 0, known / self._penalty, known * self._penalty)

    def accept(self, token_id: int) -> None:
        self._seen.add(token_id)


class CountPenalty:
    """OpenAI's: off each logit `frequency` for every time that the token came, and `presence` once."""

    def __init__(self, frequency: float, presence: float) -> None:
        self._frequency, self._presence = np.float32(frequency), np.float32(presence)
        self._seen = Counts()

    def apply(self, logits: Float32Array) -> None:
        logits[self._seen.ids] -= self._seen.counts * self._frequency + self._presence

    def accept(self, token_id: int) -> None:
        self._seen.add(token_id)
