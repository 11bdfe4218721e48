"""Rows of nobody that fill a step up to a whole block, where a whole block is quicker than the few rows it needs.

ggml's flash attention on a CPU works on blocks of 64 rows and computes the rows of a smaller step one by one: six rows
over 1,000 cells may take as long as 64. What rows and cells cost is learnt from every step:

    seconds = base + product * rows + row * (cells before each row, summed)          of less than a block
    seconds = base + product * rows + block * (blocks * cells that any row sees)     of a block and more

Fillers cost their matrix products, which are dear in a large model, and save attention, which grows with the depth of
conversations. Pure: whoever computes tells the seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul

import numpy as np
import numpy.typing as npt

from mm35local.engine.api import EngineConfig

BLOCK = 64
"""Rows that ggml's flash attention on a CPU works on together, where keys and values are f16."""
MIN_GAIN = 1.15
"""A step must be foretold to take so many times as long without fillers: what is foretold is not exact."""
SMOOTHING = 0.25
MOST_SURPRISE = 2.0
"""One step counts as at most so many times what others like it took."""
STEPS_BETWEEN_FITS = 32
_LEAST_SECONDS = 1e-9
_RIDGE = 1e-6
"""What cannot be told apart yet is taken to share the seconds."""

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """What a step has to compute."""

    num_rows: int
    num_row_cells: int
    """Cells before each row, its own included, summed over the rows."""
    num_cells: int
    """Cells that any of the rows looks at."""


def attention_block(config: EngineConfig) -> int | None:
    """Rows that attention computes together, where a smaller step is computed row by row; None where it is not."""
    is_on_cpu = not config.n_gpu_layers and not config.rpc
    has_blocks = config.flash_attention and config.kv_type == "f16" and config.n_batch >= BLOCK
    return BLOCK if is_on_cpu and has_blocks else None


class Filling:
    """Learns what a step costs, and tells whether to fill it."""

    def __init__(self, block: int) -> None:
        """`block`: rows that are computed together."""
        self.block = block
        self._samples: dict[tuple[int, int, int], list[float]] = {}
        """(1, rows, row cells, block cells, seconds) of steps of about that size."""
        self._costs = [0.0] * 4
        """Seconds of (a step, a row, a row's cell, a block's cell)."""
        self._num_unfitted = 0

    @property
    def knows_blocks(self) -> bool:
        """Was one measured?"""
        return any(num_block_cells for _, _, num_block_cells in self._samples)

    def fill_to(self, load: Load) -> int:
        """How many rows the step shall have at least; 0: no more than it needs."""
        if not 1 < load.num_rows < self.block or self.seconds(load) <= MIN_GAIN * self.seconds(load, self.block):
            return 0
        return self.block

    def seconds(self, load: Load, fill_to: int = 0) -> float:
        """What such a step is expected to take: some time, however little is known."""
        if self._num_unfitted >= STEPS_BETWEEN_FITS:
            self._costs = _fit(np.array(list(self._samples.values())))
            self._num_unfitted = 0
        return max(_LEAST_SECONDS, sum(map(mul, self._features(load, fill_to), self._costs), 0.0))

    def block_seconds(self, num_cells: int, most_rows: int) -> list[float]:
        """What 1, 2, ... blocks are expected to take behind `num_cells`; none before one was measured."""
        if not self.knows_blocks:
            return []
        rows = range(self.block, most_rows + 1, self.block)
        return [self.seconds(Load(num_rows, 0, num_cells + num_rows)) for num_rows in rows]

    def observe(self, load: Load, fill_to: int, seconds: float) -> None:
        """A step took so long."""
        features, seconds = self._features(load, fill_to), max(seconds, _LEAST_SECONDS)
        kind = features[1].bit_length(), features[2].bit_length(), features[3].bit_length()
        known = self._samples.get(kind)
        if known is None:
            self._samples[kind] = [*features, seconds]
            self._num_unfitted += STEPS_BETWEEN_FITS
            return
        measured = *features, min(seconds, MOST_SURPRISE * known[-1])
        known[:] = [old + SMOOTHING * (new - old) for old, new in zip(known, measured, strict=True)]
        self._num_unfitted += 1

    def _features(self, load: Load, fill_to: int) -> tuple[int, int, int, int]:
        num_rows = max(load.num_rows, fill_to)
        if num_rows < self.block:
            return 1, num_rows, load.num_row_cells, 0
        return 1, num_rows, 0, -(-num_rows // self.block) * load.num_cells


def _fit(samples: Float64Array) -> list[float]:
    """Four costs, none below 0, of least squares over the relative errors of `samples` f64[n, 5]."""
    features, seconds = samples[:, :4] / samples[:, 4:], np.ones(len(samples))
    scale = np.maximum(np.linalg.norm(features, axis=0), 1e-30)
    features = features / scale
    free = list(range(4))
    while free:
        columns = features[:, free]
        costs = np.linalg.solve(columns.T @ columns + _RIDGE * np.eye(len(free)), columns.T @ seconds)
        if costs.min() >= 0:
            break
        del free[int(costs.argmin())]
    found = np.zeros(4)
    found[free] = costs / scale[free]
    return found.tolist()
