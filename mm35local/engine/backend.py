"""The door between deciding and computing: one planned step in, the tokens that follow each finished chunk out.

Two things stand behind it: llama.cpp (`llama_backend`) and the deterministic fake of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mm35local.engine.images import PlacedImage
from mm35local.types import ImageGrid, SamplingParams, TokenLogprobs

NO_CELLS = 1
"""DecodeFailed.code: no free KV cells for the step; nothing was computed."""
ABORTED = 2
"""DecodeFailed.code: the step was interrupted, because somebody in it was cancelled."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one request to compute in one step, at positions start, start + 1, ..."""

    request_id: int
    slot: int
    start: int
    token_ids: Sequence[int]
    wants_token: bool
    """The chunk reaches the end of what is known: sample what follows; without `token_ids`, by the end that is kept."""
    drafts: tuple[int, ...] = ()
    """Guesses of what follows, computed behind `token_ids` in the same step; only with `wants_token`."""

    @property
    def num_rows(self) -> int:
        return len(self.token_ids) + len(self.drafts)


class Backend(Protocol):
    """What computes. Slots are sequences 0..num_sequences-1 that share the KV cells; more than run at once, because
    ended ones stay."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def num_sequences(self) -> int: ...

    def most_idle_cells(self, num_running: int) -> int | None:
        """Cells that ended sequences may keep beside so many of running ones and not slow them; None: any number."""
        ...

    @property
    def block(self) -> int | None:
        """Rows that attention computes together, where a smaller step is computed row by row; None if it is not."""
        ...

    def is_eog(self, token_id: int) -> bool:
        """Does this id end a generation?"""
        ...

    @property
    def image_grid(self) -> ImageGrid | None:
        """What images must fit; None where the model sees none."""
        ...

    def open(
        self, request_id: int, params: SamplingParams, prompt: Sequence[int], images: Sequence[PlacedImage] = ()
    ) -> None:
        """Prepare to sample for a request; what it draws depends on nothing but these and its own tokens.

        Raises RequestError if its grammar cannot be compiled.
        """
        ...

    def close(self, request_id: int) -> None:
        """Forget a request; unknown ids are ignored."""
        ...

    def compute(self, chunks: Sequence[Chunk], *, fill_to: int = 0) -> list[tuple[int, ...]]:
        """One step: for each chunk the sampled tokens, () where none was wanted.

        Rows of nobody fill it up to `fill_to`; they need cells while it is computed.

        With n drafts that is 1..n + 1 tokens: the drafts that sampling confirmed, then the first other one. The cells
        of all drafts are in the slot afterwards; the caller trims those that were not confirmed.
        Raises DecodeFailed; then the cells of the chunks' slots beyond `start` are undefined until trimmed. A
        GrammarFailed is one of them: computed alone, only its own chunk fails again.
        """
        ...

    def keeps_end(self, slot: int, num_tokens: int) -> bool:
        """Is it known what follows the first `num_tokens` of the slot, because a prompt ended there?

        Forking and trimming leave it known as long as the slot has those tokens; another prompt's end may replace it.
        """
        ...

    def take_logprobs(self, request_id: int) -> tuple[TokenLogprobs, ...]:
        """Those of the tokens sampled for it since last asked, in order; none unless its `num_logprobs` is set."""
        ...

    def fork(self, source: int, target: int, num_tokens: int) -> int:
        """Let the empty `target` share the cells of the first `num_tokens` positions of `source`.

        Returns how many it shares: `num_tokens`, or 0 where the architecture cannot forget a part.
        """
        ...

    def state_bytes(self, slot: int) -> int:
        """Size of what `save` would give."""
        ...

    def save(self, slot: int, state_bytes: int) -> npt.NDArray[np.uint8]:
        """The slot's cells as bytes, so many as `state_bytes` told, for a backend of the same model and context."""
        ...

    def restore(self, slot: int, state: npt.NDArray[np.uint8], num_tokens: int) -> bool:
        """Fill the empty slot with the `num_tokens` cells of a saved one; False, and it is empty, if that fails."""
        ...

    def num_tokens(self, slot: int) -> int:
        """How many positions the slot holds, for comparison with the books."""
        ...

    def trim(self, slot: int, num_tokens: int) -> int:
        """Keep the first `num_tokens` positions of a slot and free the other cells.

        Returns how many were kept: `num_tokens`, or 0 where the architecture cannot forget a part.
        """
        ...
