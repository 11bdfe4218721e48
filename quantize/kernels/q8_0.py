"""Blocks of Q8_0, thirty-two at a time: d (float16) and 32 signed bytes each.

Layout and arithmetic are those of ggml (ggml-common.h, ggml-quants.c, MIT: quantize_row_q8_0_ref).
"""

from __future__ import annotations

from typing import Any

from quantize.kernels.lanes import LANES, floats, load_floats, offset, transpose

_LENGTH, _BLOCK_BYTES = 32, 34
_MOST_CODE = 127


class Kernel:
    """A block a lane."""

    num_elements = LANES * _LENGTH
    num_bytes = LANES * _BLOCK_BYTES

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` floats at `source` into `num_bytes` at `target`."""
        xs = transpose([load_floats(builder, offset(builder, source, 4 * _LENGTH * lane)) for lane in range(LANES)])
        largest = zero = floats(builder, 0)
        for x in xs:
            largest = (largest > abs(x)).pick(largest, abs(x))
        step = largest / _MOST_CODE
        inverse = step.equals(0).pick(zero, 1 / step)
        rows = transpose([(x * inverse).rounded().to_bytes() for x in xs])
        for lane, row in enumerate(rows):
            start = offset(builder, target, _BLOCK_BYTES * lane)
            step.store_half(lane, start)
            row.store(offset(builder, start, 2))


Q8_0 = Kernel()
