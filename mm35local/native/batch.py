"""The rows of one llama_decode call, written through numpy views of memory that lives as long as the batch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

Int32Array = npt.NDArray[np.int32]


class Batch:
    """Up to `capacity` rows of (token id, position, sequence, wants logits). Nothing is allocated per step.

    rows      0 1 2 3 | 4 | 5          add(seq 0, pos 10, 4 tokens), add(seq 2, ...), add(seq 5, ...)
    sequence  0 0 0 0 | 2 | 5          n_seq_id is always 1; seq_id[i] points at sequence[i]
    """

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.int32)
        self._wants_logits = np.zeros(capacity, dtype=np.int8)
        self._num_sequences = np.ones(capacity, dtype=np.int32)
        first, step = self._sequence.ctypes.data, self._sequence.itemsize
        self._sequence_pointers = (first + step * np.arange(capacity)).astype(np.uintp)
        self._offsets = np.arange(capacity, dtype=np.int32)
        self._batch = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, ctypes.c_int32),
            pos=_pointer(self._position, ctypes.c_int32),
            n_seq_id=_pointer(self._num_sequences, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._wants_logits, ctypes.c_int8),
        )
        self.num_rows = 0

    def clear(self) -> None:
        self.num_rows = 0

    def add(self, sequence: int, position: int, token_ids: Sequence[int], *, wants_logits: bool) -> int:
        """Append consecutive tokens of one sequence; logits, if wanted, are those of the last. Returns its row."""
        first, end = self.num_rows, self.num_rows + len(token_ids)
        assert first < end <= len(self._token), "a batch takes 1..capacity rows"
        if end - first == 1:  # a stream's: slices would take three times as long
            self._token[first], self._position[first], self._sequence[first] = token_ids[0], position, sequence
        else:
            self._token[first:end] = token_ids
            np.add(self._offsets[: end - first], position, out=self._position[first:end])
            self._sequence[first:end] = sequence
            self._wants_logits[first : end - 1] = 0
        self._wants_logits[end - 1] = wants_logits
        self.num_rows = end
        return end - 1

    def add_drafts(self, sequence: int, position: int, token_ids: Sequence[int]) -> None:
        """Append tokens that may turn out wrong: the logits of every one are wanted."""
        if token_ids:
            end = self.add(sequence, position, token_ids, wants_logits=True) + 1
            self._wants_logits[end - len(token_ids) : end] = 1

    def struct(self) -> llama_cpp.llama_batch:
        """The `llama_batch` by value; its pointers stay valid while this object lives."""
        self._batch.n_tokens = self.num_rows
        return self._batch


class EmbeddingBatch:
    """Consecutive rows of one sequence, given as embeddings f32[n, n_embd] instead of ids; none wants logits."""

    def __init__(self, sequence: int, position: int, rows: npt.NDArray[np.float32]) -> None:
        """`rows` are not copied: they must be contiguous, and stay as they are until decoded."""
        num_rows = len(rows)
        assert num_rows, "there are rows"
        assert rows.flags.c_contiguous, "one row lies behind the other"
        self._rows = rows
        self._position = np.arange(position, position + num_rows, dtype=np.int32)
        self._sequence = np.full(num_rows, sequence, dtype=np.int32)
        self._num_sequences = np.ones(num_rows, dtype=np.int32)
        self._wants_logits = np.zeros(num_rows, dtype=np.int8)
        first, step = self._sequence.ctypes.data, self._sequence.itemsize
        self._sequence_pointers = (first + step * np.arange(num_rows)).astype(np.uintp)

    def struct(self) -> llama_cpp.llama_batch:
        """See `Batch.struct`."""
        return llama_cpp.llama_batch(
            n_tokens=len(self._rows),
            embd=_pointer(self._rows, ctypes.c_float),
            pos=_pointer(self._position, ctypes.c_int32),
            n_seq_id=_pointer(self._num_sequences, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._wants_logits, ctypes.c_int8),
        )


def _pointer(array: npt.NDArray[np.generic], kind: type) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
