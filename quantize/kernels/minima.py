"""The codes of Q4_K and Q5_K: sub-blocks of 32 with a scale and a minimum, all lanes side by side.

The arithmetic is that of ggml's reference quantiser (ggml-quants.c, MIT: make_qkx2_quants as quantize_row_q4_K_ref
calls it), operation by operation in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantize.kernels.lanes import INDEX, Floats, Ints, Variable, chosen, floats, repeated

SUB_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Grid:
    """The codes and the inverse scales that are tried: (first + 0.1 * step + most_code) / range."""

    most_code: int
    first: float
    num_steps: int

    def trials(self) -> list[float]:
        """In float32, rounded as ggml's expression is."""
        first, delta, most = np.float32(self.first), np.float32(0.1), np.float32(self.most_code)
        return [float(first + delta * np.float32(step) + most) for step in range(self.num_steps + 1)]


@dataclass(frozen=True, slots=True)
class Fit:
    """Of each lane's sub-block: x is about scale * code - depth."""

    scale: Floats
    depth: Floats
    iscale: Floats
    low: Floats
    """The codes of the search are those of iscale * (x - low)."""


def codes(x: Floats, iscale: Floats, low: Floats, most: int) -> Ints:
    return (iscale * (x - low)).nearest_int().at_least(0).at_most(most)


def fit(xs: Sequence[Floats], grid: Grid) -> Fit:
    """`xs[i]` holds element i of every sub-block."""
    builder = xs[0].builder
    square_sum = floats(builder, 0)
    for x in xs:
        square_sum += x * x
    spread = (square_sum / SUB_BLOCK).sqrt()
    weights = [spread + abs(x) for x in xs]
    low, high = xs[0], xs[0]
    sum_w, sum_x = weights[0], weights[0] * xs[0]
    for x, w in zip(xs[1:], weights[1:], strict=True):
        low, high = (x < low).pick(x, low), (x > high).pick(x, high)
        sum_w += w
        sum_x += w * x
    zero = floats(builder, 0)
    low = (low > 0).pick(zero, low)
    is_flat = high.equals(low)
    found = _best(_Sums(xs, weights, sum_w, sum_x), low, high, grid)
    return Fit(
        is_flat.pick(zero, found.scale),
        is_flat.pick(-low, found.depth),
        is_flat.pick(zero, found.iscale),
        is_flat.pick(zero, found.low),
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    xs: Sequence[Floats]
    weights: Sequence[Floats]
    sum_w: Floats
    sum_x: Floats

    def error(self, levels: Sequence[Floats], scale: Floats, low: Floats) -> Floats:
        total = floats(scale.builder, 0)
        for x, w, level in zip(self.xs, self.weights, levels, strict=True):
            difference = scale * level + low - x
            total += w * (difference * difference)
        return total

    def solve(self, levels: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
        """Least squares for fixed codes: determinant (to be positive), scale, minimum (0 at most)."""
        sum_l = sum_l2 = sum_xl = floats(self.sum_w.builder, 0)
        for x, w, level in zip(self.xs, self.weights, levels, strict=True):
            weighted = w * level
            sum_l += weighted
            sum_l2 += weighted * level
            sum_xl += weighted * x
        determinant = self.sum_w * sum_l2 - sum_l * sum_l
        scale = (self.sum_w * sum_xl - self.sum_x * sum_l) / determinant
        low = (sum_l2 * self.sum_x - sum_l * sum_xl) / determinant
        is_above = low > 0
        return determinant, is_above.pick(sum_xl / sum_l2, scale), is_above.pick(floats(low.builder, 0), low)


def _best(sums: _Sums, low: Floats, high: Floats, grid: Grid) -> Fit:
    """A better fit moves `low`, and with it the inverse scales tried after it."""
    builder, most = low.builder, grid.most_code
    iscale = most / (high - low)
    scale = 1 / iscale
    levels = [codes(x, iscale, low, most).to_floats() for x in sums.xs]
    best_error = Variable(sums.error(levels, scale, low))
    best_scale, best_low = Variable(scale), Variable(low)
    kept_iscale, kept_low = Variable(iscale), Variable(low)
    trials = grid.trials()
    with repeated(builder, INDEX(len(trials))) as step:
        low = best_low.value
        iscale = chosen(builder, trials, step) / (high - low)
        levels = [codes(x, iscale, low, most).to_floats() for x in sums.xs]
        determinant, new_scale, new_low = sums.solve(levels)
        error = sums.error(levels, new_scale, new_low)
        is_better = (determinant > 0) & (error < best_error.value)
        best_error.value = is_better.pick(error, best_error.value)
        best_scale.value = is_better.pick(new_scale, best_scale.value)
        best_low.value = is_better.pick(new_low, low)
        kept_iscale.value = is_better.pick(iscale, kept_iscale.value)
        kept_low.value = is_better.pick(low, kept_low.value)
    return Fit(best_scale.value, -best_low.value, kept_iscale.value, kept_low.value)
