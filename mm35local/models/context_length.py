"""How long a context may be: what is worth having, and the longest one that fits."""

from __future__ import annotations

from collections.abc import Callable

from mm35local.models.memory import CELL_STEP, padded_cells

LEAST_CTX = 2048
"""The shortest context that is chosen for anybody."""
GOOD_CTX = 32768
"""With this much, exact KV is worth more than a longer context."""


def longest_ctx(n_ctx_train: int, fits: Callable[[int], bool]) -> int | None:
    """The longest context in steps of 256 for which `fits` holds, at most the model's own; None below LEAST_CTX."""
    if fits(n_ctx_train):
        return n_ctx_train
    low, high = min(LEAST_CTX, n_ctx_train) // CELL_STEP, padded_cells(n_ctx_train) // CELL_STEP
    if low * CELL_STEP >= n_ctx_train or not fits(low * CELL_STEP):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * CELL_STEP) else (low, middle)
    return low * CELL_STEP
