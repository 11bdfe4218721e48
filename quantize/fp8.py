"""FP8 E4M3 (the finite-only variant "FN": no infinities, NaN at 0x7F and 0xFF) as a table of 256 floats.

Format: OCP 8-bit Floating Point Specification, section 5.2: 1 sign, 4 exponent (bias 7), 3 mantissa bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BIAS = 7
_MANTISSA_BITS = 3


def _build_table() -> NDArray[np.float32]:
    codes = np.arange(256)
    exponent, mantissa = (codes >> _MANTISSA_BITS) & 0xF, codes & 0x7
    is_normal = exponent > 0
    significand = np.where(is_normal, 8 + mantissa, mantissa) / 8
    values = np.ldexp(significand, np.where(is_normal, exponent, 1) - _BIAS) * np.where(codes < 0x80, 1.0, -1.0)
    values[[0x7F, 0xFF]] = np.nan
    table: NDArray[np.float32] = values.astype(np.float32)
    table.flags.writeable = False
    return table


E4M3_TABLE = _build_table()
"""The value of each code, float32 (exact)."""


def scaled_table(scale: float) -> NDArray[np.float32]:
    """The 256 products code * scale, each rounded to float32 once: what a decoder gets element by element."""
    return E4M3_TABLE * np.float32(scale)
