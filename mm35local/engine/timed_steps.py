"""Steps by the clock: they are computed, and everybody who plans by what steps take learns of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mm35local.engine.backend import Backend, Chunk
from mm35local.engine.filling import Filling, Load
from mm35local.engine.kv_pool import KvPool
from mm35local.engine.pace import Pace
from mm35local.engine.speculation import Speculator
from mm35local.engine.step_costs import Filled


class TimedSteps:
    def __init__(
        self, backend: Backend, pool: KvPool, pace: Pace, speculator: Speculator, clock: Callable[[], float]
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._pace = pace
        self._speculator = speculator
        self._clock = clock
        self._filling = Filling(backend.block) if backend.block else None

    def compute(self, chunks: Sequence[Chunk]) -> list[tuple[int, ...]]:
        """See `Backend.compute`; filled where that is quicker. Nobody learns from a step that failed."""
        if self._filling is None:
            sampled, seconds = self._timed(chunks, 0)
        else:
            load = self._load(chunks)
            fill_to = self._filling.fill_to(load) if self._has_room_for(self._filling) else 0
            sampled, seconds = self._timed(chunks, fill_to)
            if load.num_rows:
                self._filling.observe(load, fill_to, seconds)
        self._tell(chunks, seconds)
        return sampled

    def filled(self, streams: Sequence[Chunk]) -> Filled | None:
        """What drafts add to a step of these; None where it has prompts, steps are not filled, or none was."""
        if self._filling is None or not self._filling.knows_blocks or not self._has_room_for(self._filling):
            return None
        load = self._load(streams)
        if not 0 < load.num_rows <= len(streams):
            return None
        plain, block = self._filling.seconds(load), self._filling.seconds(load, self._filling.block)
        deeper = Load(load.num_rows + 1, load.num_row_cells + load.num_row_cells // load.num_rows, load.num_cells + 1)
        return Filled(self._filling.block, block, max(0.0, self._filling.seconds(deeper) - plain))

    def block_seconds(self, slots: Sequence[int], most_rows: int) -> list[float]:
        """What steps of 1, 2, ... whole blocks take that compute for all of these; none where steps are not filled."""
        return self._filling.block_seconds(self._pool.num_held(slots), most_rows) if self._filling else []

    def room_in_block(self, num_rows: int, room: int) -> int:
        """Of `room` for more rows what a step of so many has left of its last block; all, where there are no blocks."""
        return min(room, -num_rows % self._filling.block) if self._filling else room

    def _has_room_for(self, filling: Filling) -> bool:
        """Fillers take cells that nobody has, while the step is computed."""
        return self._pool.num_free_cells >= filling.block

    def _timed(self, chunks: Sequence[Chunk], fill_to: int) -> tuple[list[tuple[int, ...]], float]:
        started = self._clock()
        sampled = self._backend.compute(chunks, fill_to=fill_to)
        return sampled, self._clock() - started

    def _load(self, chunks: Sequence[Chunk]) -> Load:
        num_rows = num_row_cells = 0
        for chunk in chunks:
            num_more = chunk.num_rows
            num_rows += num_more
            num_row_cells += num_more * (2 * chunk.start + num_more + 1) // 2
        return Load(num_rows, num_row_cells, num_rows + self._pool.num_held([chunk.slot for chunk in chunks]))

    def _tell(self, chunks: Sequence[Chunk], seconds: float) -> None:
        num_streams, num_drafts, num_prompt_rows = count_rows(chunks)
        if num_streams or num_prompt_rows:
            self._pace.observe(num_streams, num_drafts, num_prompt_rows, seconds)
        if num_streams and not num_prompt_rows:  # the time of a prompt beside is the prompt's
            self._speculator.record_step(num_streams + num_drafts, seconds)


def count_rows(chunks: Sequence[Chunk]) -> tuple[int, int, int]:
    """A step's rows: streams, drafts behind them, tokens of prompts."""
    num_streams = num_drafts = num_prompt_rows = 0
    for chunk in chunks:
        if chunk.wants_token and len(chunk.token_ids) == 1:
            num_streams += 1
        else:
            num_prompt_rows += len(chunk.token_ids)
        num_drafts += len(chunk.drafts)
    return num_streams, num_drafts, num_prompt_rows
