"""Blocks of Q6_K, one at a time: its 16 sub-blocks are the 16 lanes.

A block of 256: the lower four bits of the codes (128 bytes), their upper two (64), sixteen signed scales, d (float16).
Layout and arithmetic are those of ggml (ggml-common.h, ggml-quants.c, MIT: quantize_row_q6_K_ref).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantize.kernels import extrema
from quantize.kernels.lanes import LANES, Bytes, Floats, Mask, floats, load_floats, offset, shuffled, transpose

_MOST_SCALE = 127
_HIGH_AT, _SCALES_AT, _D_AT = 128, 192, 208


class Kernel:
    """A block a call."""

    num_elements = LANES * LANES
    num_bytes = 210

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` floats at `source` into `num_bytes` at `target`."""
        starts = [offset(builder, source, 4 * LANES * lane) for lane in range(LANES)]
        xs = transpose([load_floats(builder, start) for start in starts])
        found = extrema.fit(xs)
        largest = _largest(found.scale)
        zero = floats(builder, 0)
        is_zero = abs(largest) < extrema.SMALLEST
        inverse = -128.0 / largest
        step = is_zero.pick(zero, 1 / inverse)
        counts = (inverse * found.scale).nearest_int().at_most(_MOST_SCALE).as_signed_byte()
        counts = is_zero.pick(counts & 0, counts)
        codes = _requantised(xs, found, step.as_half() * counts.to_floats(), is_zero)
        _store_codes(transpose(codes), target)
        counts.to_bytes().store(offset(builder, target, _SCALES_AT))
        step.store_half(0, offset(builder, target, _D_AT))


Q6_K = Kernel()


def _largest(scales: Floats) -> Floats:
    """In every lane the scale of largest magnitude, the first of equals; NaN counts as 0, which no comparison takes."""
    zero = floats(scales.builder, 0)
    largest = (abs(scales) > 0).pick(scales, zero)
    for bit in (1, 2, 4, 8):
        first = shuffled(largest, [lane & ~bit for lane in range(LANES)])
        second = shuffled(largest, [lane | bit for lane in range(LANES)])
        largest = (abs(second) > abs(first)).pick(second, first)
    return largest


def _requantised(xs: Sequence[Floats], found: extrema.Fit, scales: Floats, is_zero: Mask) -> list[Bytes]:
    """The codes for the rounded scales, counted from 0; a scale that became 0 keeps the codes of the search."""
    is_kept = scales.equals(0)
    is_nothing = is_zero | (is_kept & found.is_zero)
    codes = []
    for x in xs:
        code = is_kept.pick(extrema.rounded(found.iscale * x), extrema.rounded(x / scales)) - extrema.LEAST
        codes.append(is_nothing.pick(code & 0, code).to_bytes())
    return codes


def _store_codes(rows: Sequence[Bytes], target: Any) -> None:
    """`rows[j]`: the elements of sub-block j; each half of the block packs four groups of 32."""
    builder = rows[0].builder
    for half in (0, 1):
        for part in (0, 1):
            first, second, third, fourth = rows[8 * half + part : 8 * half + 8 : 2]
            low = offset(builder, target, 64 * half + LANES * part)
            ((first & 15) | third << 4).store(low)
            ((second & 15) | fourth << 4).store(offset(builder, low, 32))
            high = first >> 4 | (second >> 4) << 2 | (third >> 4) << 4 | (fourth >> 4) << 6
            high.store(offset(builder, target, _HIGH_AT + 32 * half + LANES * part))
