"""A predictable backend: the next token is a hash of the cells, so a wrong cell gives a wrong answer.

It refuses what llama.cpp would refuse (a gap in the positions, more cells than there are), and fails when told to.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mm35local.engine.backend import NO_CELLS, Chunk
from mm35local.engine.images import PlacedImage
from mm35local.errors import DecodeFailed
from mm35local.types import ImageGrid, SamplingParams, TokenLogprobs

N_VOCAB = 64
EOG = 0


def next_token(tokens: Sequence[int], params: SamplingParams, num_drawn: int) -> int:
    """What follows `tokens`; with a temperature also the seed and the number of earlier draws matter."""
    drawn = (params.seed, num_drawn) if params.temperature > 0 else ()
    number = zlib.crc32(repr((list(tokens), drawn)).encode())
    return 1 + number % (N_VOCAB - 1) if params.ignore_eos else number % N_VOCAB


def expected_answer(prompt: Sequence[int], params: SamplingParams, n_ctx: int) -> list[int]:
    """What one request alone must give."""
    tokens = list(prompt)
    limit = n_ctx if params.max_tokens is None else len(prompt) + params.max_tokens
    while len(tokens) < limit:
        token_id = next_token(tokens, params, len(tokens) - len(prompt))
        if token_id == EOG:
            break
        tokens.append(token_id)
    return tokens[len(prompt) :]


class FakeBackend:
    """Whoever needs more than `capacity` cells has miscounted; `faults` gives a DecodeFailed code per compute call.

    `num_real_cells` fewer than the books say: beyond them compute says NO_CELLS.
    """

    def __init__(
        self,
        *,
        num_slots: int,
        capacity: int,
        n_batch: int,
        faults: Iterator[int] | None = None,
        is_poisoned: Callable[[Chunk], bool] = lambda chunk: False,
        can_trim: bool = True,
        num_real_cells: int | None = None,
        block: int | None = None,
    ) -> None:
        self.cells: list[list[int]] = [[] for _ in range(2 * num_slots + 1)]
        self._owners: list[list[int]] = [[] for _ in self.cells]
        """Beside each token the number of its cell, which forks share."""
        self._num_made = 0
        self._ends: dict[int, int] = {}
        """Of each slot the tokens before the end of a prompt; what follows them is kept."""
        self._prompt_lengths: dict[int, int] = {}
        self.opened: dict[int, SamplingParams] = {}
        self.num_drawn: dict[int, int] = {}
        self.num_told: dict[int, int] = {}
        self.num_computed = 0
        self.most_idle: int | None = None
        self.steps: list[tuple[Chunk, ...]] = []
        self.fills: list[int] = []
        """`fill_to` of each step."""
        self._capacity = capacity
        self._n_batch = n_batch
        self._faults = faults
        self._is_poisoned = is_poisoned
        self._can_trim = can_trim
        self._block = block
        self._num_real_cells = capacity if num_real_cells is None else num_real_cells

    @property
    def n_vocab(self) -> int:
        return N_VOCAB

    @property
    def num_sequences(self) -> int:
        return len(self.cells)

    @property
    def block(self) -> int | None:
        return self._block

    @property
    def num_used_cells(self) -> int:
        return len({cell for cells in self._owners for cell in cells})

    def num_tokens(self, slot: int) -> int:
        return len(self.cells[slot])

    def fork(self, source: int, target: int, num_tokens: int) -> int:
        assert not self.cells[target], "a fork starts from an empty sequence"
        assert num_tokens <= len(self.cells[source]), "nobody shares what was never computed"
        kept = num_tokens if self._can_trim or num_tokens == len(self.cells[source]) else 0
        self.cells[target] = self.cells[source][:kept]
        self._owners[target] = self._owners[source][:kept]
        if 0 < self._ends.get(source, 0) <= kept:
            self._ends[target] = self._ends[source]
        return kept

    def state_bytes(self, slot: int) -> int:
        return 4 * len(self.cells[slot]) + 4

    def save(self, slot: int, state_bytes: int) -> npt.NDArray[np.uint8]:
        assert state_bytes == self.state_bytes(slot), "nothing has changed since it was asked"
        return np.array([*self.cells[slot], self._ends.get(slot, 0)], dtype=np.int32).view(np.uint8)

    def restore(self, slot: int, state: npt.NDArray[np.uint8], num_tokens: int) -> bool:
        assert not self.cells[slot], "a state fills an empty sequence"
        *tokens, end = state.view(np.int32).tolist()
        if len(tokens) != num_tokens:
            return False
        self.cells[slot] = tokens
        self._ends[slot] = end
        self._owners[slot] = list(range(self._num_made, self._num_made + num_tokens))
        self._num_made += num_tokens
        assert self.num_used_cells <= self._capacity, "more cells than there are"
        return True

    def most_idle_cells(self, num_running: int) -> int | None:
        return self.most_idle and max(self.most_idle, 2 * num_running)

    def is_eog(self, token_id: int) -> bool:
        return token_id == EOG

    @property
    def image_grid(self) -> ImageGrid | None:
        return ImageGrid()

    def open(
        self, request_id: int, params: SamplingParams, prompt: Sequence[int], images: Sequence[PlacedImage] = ()
    ) -> None:
        assert request_id not in self.opened, "a request is opened once"
        assert prompt, "a prompt is never empty"
        self.opened[request_id] = params
        self.num_drawn[request_id] = 0
        self._prompt_lengths[request_id] = len(prompt)

    def close(self, request_id: int) -> None:
        self.opened.pop(request_id, None)

    def compute(self, chunks: Sequence[Chunk], *, fill_to: int = 0) -> list[tuple[int, ...]]:
        assert chunks, "a step computes something"
        assert sum(chunk.num_rows for chunk in chunks) <= self._n_batch, "a step fits the batch"
        assert len({chunk.slot for chunk in chunks}) == len(chunks), "a slot has one request"
        for chunk in chunks:
            assert chunk.start == len(self.cells[chunk.slot]), "positions are contiguous"
            is_ready = chunk.wants_token and self.keeps_end(chunk.slot, chunk.start)
            assert chunk.token_ids or is_ready, "nothing is left to compute only where the end is kept"
            assert chunk.token_ids or not chunk.drafts, "drafts stand behind a row"
            self.cells[chunk.slot] += (*chunk.token_ids, *chunk.drafts)
            self._owners[chunk.slot] += range(self._num_made, self._num_made + chunk.num_rows)
            self._num_made += chunk.num_rows
        num_fillers = max(0, fill_to - sum(chunk.num_rows for chunk in chunks))
        assert self.num_used_cells + num_fillers <= self._capacity, "fillers take what nobody has"
        self._check(chunks)
        self.steps.append(tuple(chunks))
        self.fills.append(fill_to)
        self.num_computed += sum(chunk.num_rows for chunk in chunks)
        return [self._draw(chunk) if chunk.wants_token else () for chunk in chunks]

    def take_logprobs(self, request_id: int) -> tuple[TokenLogprobs, ...]:
        """One for each token drawn since the last call: its number in the answer, negated."""
        first, last = self.num_told.get(request_id, 0), self.num_drawn[request_id]
        self.num_told[request_id] = last
        return tuple(TokenLogprobs(-float(number)) for number in range(first, last))

    def trim(self, slot: int, num_tokens: int) -> int:
        assert num_tokens <= len(self.cells[slot]), "nobody keeps what was never computed"
        kept = num_tokens if self._can_trim or num_tokens == len(self.cells[slot]) else 0
        del self.cells[slot][kept:]
        del self._owners[slot][kept:]
        if self._ends.get(slot, 0) > kept:
            del self._ends[slot]
        return kept

    def keeps_end(self, slot: int, num_tokens: int) -> bool:
        return self._ends.get(slot, 0) == num_tokens > 0

    def _check(self, chunks: Sequence[Chunk]) -> None:
        code = next(self._faults, 0) if self._faults else 0
        if any(map(self._is_poisoned, chunks)):
            code = -3
        num_used = self.num_used_cells
        assert num_used <= self._capacity, "more cells than there are"
        if num_used > self._num_real_cells:
            code = NO_CELLS
        if code == NO_CELLS:
            for chunk in chunks:
                del self.cells[chunk.slot][chunk.start :]
                del self._owners[chunk.slot][chunk.start :]
        if code:
            raise DecodeFailed(code)

    def _draw(self, chunk: Chunk) -> tuple[int, ...]:
        """The drafts that come true, and one more."""
        end = chunk.start + len(chunk.token_ids)
        if end == self._prompt_lengths[chunk.request_id]:
            self._ends[chunk.slot] = end
        drawn: list[int] = []
        for draft in (*chunk.drafts, None):
            num_known = chunk.start + len(chunk.token_ids) + len(drawn)
            num_drawn = self.num_drawn[chunk.request_id]
            self.num_drawn[chunk.request_id] = num_drawn + 1
            drawn.append(next_token(self.cells[chunk.slot][:num_known], self.opened[chunk.request_id], num_drawn))
            if drawn[-1] != draft:
                break
        return tuple(drawn)
