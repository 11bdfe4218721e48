"""Blocks of Q4_K and Q5_K, two at a time: their 16 sub-blocks are the 16 lanes.

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

_BLOCK = 256
_SUB_BLOCKS = 8
_SCALE_BYTES = 12
_MOST_SCALE = 63


@dataclass(frozen=True, slots=True)
class Kernel:
    """Two blocks a call."""

    grid: Grid
    has_high_bits: bool

    num_elements = LANES * SUB_BLOCK

    @property
    def block_bytes(self) -> int:
        return 4 + _SCALE_BYTES + 32 * self.has_high_bits + 128

    @property
    def num_bytes(self) -> int:
        return 2 * self.block_bytes

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` floats at `source` into `num_bytes` at `target`."""
        xs = _load(builder, source)
        found = fit(xs, self.grid)
        scales, depths = _Steps.of(found.scale), _Steps.of(found.depth)
        rows = _by_lane(_requantised(xs, found, scales, depths, self.grid.most_code))
        for block in (0, 1):
            start = offset(builder, target, block * self.block_bytes)
            scales.step.store_half(block * _SUB_BLOCKS, start)
            depths.step.store_half(block * _SUB_BLOCKS, offset(builder, start, 2))
            _store_scales(scales.count, depths.count, block * _SUB_BLOCKS, offset(builder, start, 4))
            own = [half[block * _SUB_BLOCKS : (block + 1) * _SUB_BLOCKS] for half in rows]
            self._store_codes(own, offset(builder, start, 4 + _SCALE_BYTES))

    def _store_codes(self, halves: Sequence[Sequence[Bytes]], start: Any) -> None:
        """`halves[h][j]`: elements 16 h to 16 h + 15 of sub-block j of one block."""
        builder = halves[0][0].builder
        for half, rows in enumerate(halves):
            target = offset(builder, start, 16 * half)
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


def _load(builder: Any, source: Any) -> list[Floats]:
    xs = []
    for half in range(0, SUB_BLOCK, LANES):
        starts = [lane * SUB_BLOCK + half for lane in range(LANES)]
        xs += transpose([load_floats(builder, offset(builder, source, 4 * start)) for start in starts])
    return xs


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


def _by_lane(columns: Sequence[Bytes]) -> list[list[Bytes]]:
    """Element by element -> for each 16 elements, lane by lane."""
    return [transpose(columns[first : first + LANES]) for first in range(0, len(columns), LANES)]


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
