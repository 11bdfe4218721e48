"""Blocks of Q4_K and Q5_K, four at a time: their 32 sub-blocks are the 32 lanes.

A block of 256: d and dmin (float16), eight 6-bit scales and eight 6-bit minima in 12 bytes, for Q5_K the fifth bits of
the codes (32 bytes), then their lower four bits (128 bytes). Layout and arithmetic are those of ggml (ggml-common.h,
ggml-quants.c, MIT: quantize_row_q4_K_ref, quantize_row_q5_K_ref).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantize.kernels.lanes import LANES, Bytes, Floats, floats, load_floats, offset, shuffled, transpose
from quantize.kernels.minima import SUB_BLOCK, Fit, Grid, codes, fit

_SUB_BLOCKS = 8
_SCALE_BYTES = 12
_MOST_SCALE = 63


@dataclass(frozen=True, slots=True)
class Kernel:
    """Four blocks a call."""

    grid: Grid
    has_high_bits: bool

    num_elements = LANES * SUB_BLOCK

    @property
    def block_bytes(self) -> int:
        return 4 + _SCALE_BYTES + 32 * self.has_high_bits + 128

    @property
    def num_bytes(self) -> int:
        return LANES // _SUB_BLOCKS * self.block_bytes

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` floats at `source` into `num_bytes` at `target`."""
        starts = [offset(builder, source, 4 * SUB_BLOCK * lane) for lane in range(LANES)]
        xs = transpose([load_floats(builder, start) for start in starts])
        found = fit(xs, self.grid)
        scales, depths = _Steps.of(found.scale), _Steps.of(found.depth)
        rows = transpose(_requantised(xs, found, scales, depths, self.grid.most_code))
        for number, first in enumerate(range(0, LANES, _SUB_BLOCKS)):
            start = offset(builder, target, number * self.block_bytes)
            scales.step.store_half(first, start)
            depths.step.store_half(first, offset(builder, start, 2))
            _store_scales(scales.count, depths.count, first, offset(builder, start, 4))
            self._store_codes(rows[first : first + _SUB_BLOCKS], offset(builder, start, 4 + _SCALE_BYTES))

    def _store_codes(self, rows: Sequence[Bytes], target: Any) -> None:
        """`rows[j]`: the codes of sub-block j of one block."""
        builder = rows[0].builder
        if self.has_high_bits:
            high = rows[0] >> 4
            for sub_block, row in enumerate(rows[1:], 1):
                high |= (row >> 4) << sub_block
            high.store(target)
            target = offset(builder, target, 32)
        for pair in range(_SUB_BLOCKS // 2):
            packed = (rows[2 * pair] & 15) | (rows[2 * pair + 1] << 4)
            packed.store(offset(builder, target, 32 * pair))


Q4_K = Kernel(Grid(15, -1.0, 20), has_high_bits=False)
Q5_K = Kernel(Grid(31, -0.5, 15), has_high_bits=True)


@dataclass(frozen=True, slots=True)
class _Steps:
    """A value of every sub-block as `count` steps of a float16 that its block shares."""

    step: Floats
    count: Bytes
    value: Floats

    @classmethod
    def of(cls, exact: Floats) -> _Steps:
        zero = floats(exact.builder, 0)
        largest = (exact > 0).pick(exact, zero)
        for bit in (1, 2, 4):
            other = shuffled(largest, [lane ^ bit for lane in range(LANES)])
            largest = (other > largest).pick(other, largest)
        inverse = (largest > 0).pick(_MOST_SCALE / largest, zero)
        count = ((inverse * exact).nearest_int() & 0xFF).at_most(_MOST_SCALE)
        step = largest / _MOST_SCALE
        return cls(step, count.to_bytes(), step.as_half() * count.to_floats())


def _requantised(xs: Sequence[Floats], found: Fit, scales: _Steps, depths: _Steps, most: int) -> list[Bytes]:
    """The codes for the rounded scale and minimum; a scale that became 0 keeps the codes of the search."""
    is_kept = scales.value.equals(0)
    return [
        is_kept.pick(
            codes(x, found.iscale, found.low, most),
            ((x + depths.value) / scales.value).nearest_int().at_least(0).at_most(most),
        ).to_bytes()
        for x in xs
    ]


def _store_scales(scales: Bytes, depths: Bytes, first: int, start: Any) -> None:
    """ggml's packing of eight 6-bit scales and minima: of the last four, the upper two bits lie over the first four."""
    builder = scales.builder
    later = [lane ^ 4 for lane in range(LANES)]
    later_scales, later_depths = shuffled(scales, later), shuffled(depths, later)
    parts = (
        scales | (later_scales >> 4) << 6,
        depths | (later_depths >> 4) << 6,
        (later_scales & 15) | later_depths << 4,
    )
    for number, part in enumerate(parts):
        part.store(offset(builder, start, 4 * number), first, 4)
