"""Rounds float32 to FP8 E4M3 with one scale per tensor, as the release was made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantize.fp8 import E4M3_TABLE

_LARGEST = np.float32(448.0)
_NUM_FINITE = 127
"""Codes 0x00-0x7E are finite and ascending; 0x7F is NaN."""


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of bfloat16, rounded to nearest even. Finite values only."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def encode(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], np.float32]:
    """(codes, scale) with values close to E4M3_TABLE[codes] * scale; the scale is representable in bfloat16."""
    scale = from_bf16(to_bf16(np.array([np.abs(values).max() / _LARGEST], np.float32)))[0]
    grid = E4M3_TABLE[:_NUM_FINITE]
    midpoints = (grid[1:] + grid[:-1]) / 2
    magnitude = np.minimum(np.abs(values) / scale, _LARGEST)
    codes = np.searchsorted(midpoints, magnitude, side="left").astype(np.uint8)
    is_tie = magnitude == midpoints[np.minimum(codes, _NUM_FINITE - 2)]
    codes += (is_tie & (codes % 2 == 1)).astype(np.uint8)
    return codes | (np.signbit(values).astype(np.uint8) << 7), scale
