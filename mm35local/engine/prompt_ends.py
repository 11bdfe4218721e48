"""What follows a prompt stays known with its cells: the logits behind its last token, of one prompt a sequence.

A prompt that comes again, or is answered several times, then takes no step, and is answered exactly as before: computed
alone, its last token would be rounded otherwise than at the end of a batch. Invariant: what is kept of a sequence is
behind tokens that it still holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_TAIL = struct.Struct("<II")
"""Behind a saved state and the logits: the number of tokens before them, 0 for no logits, and of their bytes."""


@dataclass(frozen=True, slots=True)
class _End:
    num_tokens: int
    logits: Float32Array


class PromptEnds:
    def __init__(self) -> None:
        self._ends: dict[int, _End] = {}
        """By sequence; those that were forked have the same array."""

    def keep(self, sequence: int, num_tokens: int, logits: Float32Array) -> None:
        """A copy of `logits`, f32[n_vocab], of what follows the first `num_tokens`; in place of an earlier one."""
        self._ends[sequence] = _End(num_tokens, logits.copy())

    def behind(self, sequence: int, num_tokens: int) -> Float32Array | None:
        """A copy of the logits of what follows the first `num_tokens`; None if they were not kept."""
        return self._ends[sequence].logits.copy() if self.is_kept(sequence, num_tokens) else None

    def is_kept(self, sequence: int, num_tokens: int) -> bool:
        end = self._ends.get(sequence)
        return end is not None and end.num_tokens == num_tokens

    def fork(self, source: int, target: int, num_tokens: int) -> None:
        """`target` holds the first `num_tokens` of `source`, too."""
        end = self._ends.get(source)
        if end is not None and end.num_tokens <= num_tokens:
            self._ends[target] = end

    def trim(self, sequence: int, num_tokens: int) -> None:
        """The sequence keeps its first `num_tokens`."""
        end = self._ends.get(sequence)
        if end is not None and end.num_tokens > num_tokens:
            del self._ends[sequence]

    def num_packed_bytes(self, sequence: int) -> int:
        end = self._ends.get(sequence)
        return _TAIL.size + (end.logits.nbytes if end is not None else 0)

    def packed(self, sequence: int) -> Bytes:
        """u8[n]: what goes behind a saved state of the sequence."""
        end = self._ends.get(sequence)
        num_tokens, logits = (end.num_tokens, end.logits.tobytes()) if end else (0, b"")
        return np.frombuffer(logits + _TAIL.pack(num_tokens, len(logits)), dtype=np.uint8)

    def unpack(self, sequence: int, saved: Bytes) -> Bytes:
        """Keep what is behind a saved state; returns the state, a view."""
        num_tokens, num_bytes = _TAIL.unpack(saved[-_TAIL.size :].tobytes())
        logits_at = len(saved) - _TAIL.size - num_bytes
        if num_tokens:
            logits = saved[logits_at : logits_at + num_bytes].tobytes()
            self._ends[sequence] = _End(num_tokens, np.frombuffer(logits, dtype=np.float32))
        return saved[:logits_at]
