"""Rows on which a quantiser shows how it rounds: what weights are like, and what they hardly ever are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantize.fp8 import E4M3_TABLE

ROW_LENGTH = 1024
_NUM_NORMAL_ROWS = 64
_POWERS = (-45, -40, -30, -20, -15, -12, -8, -4, 4, 8, 12, 20, 30, 38)


def probe_rows(seed: int = 0) -> NDArray[np.float32]:
    """[num_rows, 1024] float32, finite: normal rows of many sizes, and edge cases in the rows after them."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-4, 1, (_NUM_NORMAL_ROWS, ROW_LENGTH // 16)).repeat(16, axis=1)
    rows = [*(rng.standard_normal((_NUM_NORMAL_ROWS, ROW_LENGTH)) * sizes), *_edge_rows(rng)]
    largest = np.finfo(np.float32).max
    return np.clip(np.stack(rows), -largest, largest).astype(np.float32)


def _edge_rows(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Zeros, constants, one sign, grids, FP8, denormals, all magnitudes, rare outliers, the edges of float16."""
    normal = rng.standard_normal(ROW_LENGTH)
    is_rare = rng.random(ROW_LENGTH) < 0.02
    rows = [np.zeros(ROW_LENGTH), np.full(ROW_LENGTH, 0.37), np.full(ROW_LENGTH, -0.37), -abs(normal), abs(normal)]
    rows += [rng.integers(-3, 4, ROW_LENGTH).astype(np.float64), rng.choice([-1.0, 1.0], ROW_LENGTH)]
    rows += [E4M3_TABLE[rng.integers(0, 126, ROW_LENGTH)] * 1e-3, normal + rng.uniform(-5, 5, 32).repeat(32)]
    rows += [rng.integers(0, 1 << 23, ROW_LENGTH, dtype=np.uint32).view(np.float32).astype(np.float64)]
    rows += [normal * step for step in (6e-8 * 15, 6e-8 * 31, 65504.0 * 15, 65504.0 * 63, 65504.0 * 128)]
    for power in _POWERS:
        scaled = normal * 10.0**power
        rows += [
            scaled,
            np.where(is_rare, scaled, 0.0),
            np.where(is_rare, scaled, normal),
            np.where(is_rare, 0, scaled),
        ]
    return rows
