"""Blocks of Q6_K, two at a time: their 32 sub-blocks are the 32 lanes.

A block of 256: the lower four bits of the codes (128 bytes), their upper two (64), sixteen signed scales, d (float16).
Layout and arithmetic are those of ggml (ggml-common.h, ggml-quants.c, MIT: quantize_row_q6_K_ref).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantize.kernels import extrema
from quantize.kernels.lanes import LANES, Bytes, Floats, Mask, floats, load_floats, offset, shuffled, transpose

_SUB_BLOCK, _SUB_BLOCKS = 16, 16
_MOST_SCALE = 127
_HIGH_AT, _SCALES_AT, _D_AT, _BLOCK_BYTES = 128, 192, 208, 210
_IN_ORDER = [lane // 2 + 16 * (lane % 2) for lane in range(LANES)]
"""A row of 32 elements is two sub-blocks; transposed, the first of each row lie before the second ones."""
_BY_ROW = [lane // 16 + 2 * (lane % 16) for lane in range(LANES)]


class Kernel:
    """Two blocks a call."""

    num_elements = LANES * _SUB_BLOCK
    num_bytes = 2 * _BLOCK_BYTES

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` floats at `source` into `num_bytes` at `target`."""
        starts = [offset(builder, source, 4 * LANES * row) for row in range(self.num_elements // LANES)]
        columns = transpose([load_floats(builder, start) for start in starts])
        xs = [shuffled(column, _IN_ORDER) for column in columns]
        found = extrema.fit(xs)
        largest = _largest(found.scale)
        zero = floats(builder, 0)
        is_zero = abs(largest) < extrema.SMALLEST
        inverse = -128.0 / largest
        step = is_zero.pick(zero, 1 / inverse)
        counts = (inverse * found.scale).nearest_int().at_most(_MOST_SCALE).as_signed_byte()
        counts = is_zero.pick(counts & 0, counts)
        codes = _requantised(xs, found, step.as_half() * counts.to_floats(), is_zero)
        rows = transpose([shuffled(code, _BY_ROW) for code in codes])
        for block in (0, 1):
            first, start = block * _SUB_BLOCKS, offset(builder, target, block * _BLOCK_BYTES)
            _store_codes(rows[8 * block : 8 * block + 8], start)
            counts.to_bytes().store(offset(builder, start, _SCALES_AT), first, _SUB_BLOCKS)
            step.store_half(first, offset(builder, start, _D_AT))


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
    """`rows[j]`: 32 codes; four rows are packed together."""
    builder = rows[0].builder
    for half in (0, 1):
        first, second, third, fourth = rows[4 * half : 4 * half + 4]
        low = offset(builder, target, 64 * half)
        ((first & 15) | third << 4).store(low)
        ((second & 15) | fourth << 4).store(offset(builder, low, 32))
        high = first >> 4 | (second >> 4) << 2 | (third >> 4) << 4 | (fourth >> 4) << 6
        high.store(offset(builder, target, _HIGH_AT + 32 * half))
