"""Decoding and permuting of rows, in the small."""

from __future__ import annotations

import numpy as np
import pytest

from quantize.rows import decode, interleave_heads
from tests.pocket.fp8 import to_bf16


def test_bf16_f16_and_f32_are_exact() -> None:
    values = np.array([0.0, -1.5, 2.0**-100, 3e38], np.float32)
    np.testing.assert_array_equal(decode(values.view(np.uint8), "F32"), values)
    bits = to_bf16(values)
    np.testing.assert_array_equal(decode(bits.view(np.uint8), "BF16"), (bits.astype(np.uint32) << 16).view(np.float32))
    halves = np.array([0.0, -1.5, 65504.0, 2.0**-24], np.float16)
    np.testing.assert_array_equal(decode(halves.view(np.uint8), "F16"), halves.astype(np.float32))


@pytest.mark.parametrize("num_heads", [1, 3])
def test_heads_are_interleaved(num_heads: int) -> None:
    rows = np.arange(num_heads * 6, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    expected = [head * 6 + row for head in range(num_heads) for row in (0, 3, 1, 4, 2, 5)]
    assert interleave_heads(rows, 6)[:, 0].tolist() == expected
