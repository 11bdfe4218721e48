"""The codes of Q6_K: sub-blocks of 16 with a scale of either sign, all lanes side by side.

The arithmetic is that of ggml's reference quantiser (ggml-quants.c, MIT: make_qx_quants as quantize_row_q6_K_ref calls
it, weights x^2), operation by operation in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantize.kernels.lanes import INDEX, Floats, Ints, Mask, Variable, chosen, floats, repeated

LEAST, MOST = -32, 31
SMALLEST = 1e-15
"""Sub-blocks with no larger magnitude are zeros to ggml (GROUP_MAX_EPS)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Of each lane's sub-block: x is about scale * code."""

    scale: Floats
    iscale: Floats
    """The codes of the search are those of iscale * x."""
    is_zero: Mask


def rounded(quotient: Floats) -> Ints:
    return quotient.nearest_int().at_least(LEAST).at_most(MOST)


def fit(xs: Sequence[Floats]) -> Fit:
    """`xs[i]` holds element i of every sub-block."""
    builder = xs[0].builder
    zero = floats(builder, 0)
    largest = magnitude = zero
    for x in xs:
        is_larger = abs(x) > magnitude
        magnitude, largest = is_larger.pick(abs(x), magnitude), is_larger.pick(x, largest)
    squares = [x * x for x in xs]
    iscale = LEAST / largest
    sum_lx, sum_l2 = _sums(xs, squares, iscale)
    first = sum_l2.equals(0).pick(zero, sum_lx / sum_l2)
    scale, best, kept = Variable(first), Variable(first * sum_lx), Variable(iscale)
    trials = _trials()
    with repeated(builder, INDEX(len(trials))) as step:
        iscale = chosen(builder, trials, step) / largest
        sum_lx, sum_l2 = _sums(xs, squares, iscale)
        is_better = (sum_l2 > 0) & (sum_lx * sum_lx > best.value * sum_l2)
        new_scale = sum_lx / sum_l2
        scale.value = is_better.pick(new_scale, scale.value)
        best.value = is_better.pick(new_scale * sum_lx, best.value)
        kept.value = is_better.pick(iscale, kept.value)
    is_zero = magnitude < SMALLEST
    return Fit(is_zero.pick(zero, scale.value), kept.value, is_zero)


def _trials() -> list[float]:
    """-(32 + 0.1 * step) in float32, rounded as ggml's expression is; step 0 comes before the others."""
    return [-float(np.float32(-LEAST) + np.float32(0.1) * np.float32(step)) for step in range(-9, 10) if step]


def _sums(xs: Sequence[Floats], weights: Sequence[Floats], iscale: Floats) -> tuple[Floats, Floats]:
    """w * x * code and w * code^2, summed over the elements."""
    sum_lx = sum_l2 = floats(iscale.builder, 0)
    for x, w in zip(xs, weights, strict=True):
        code = rounded(iscale * x).to_floats()
        sum_lx += w * x * code
        sum_l2 += w * code * code
    return sum_lx, sum_l2
