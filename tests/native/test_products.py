"""Products by ggml against numpy's, and what counts as wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mm35local.native.products import Deviation, multiply
from mm35local.native.quant import quantize_rows

Q8_0, Q4_K = 8, 12


@pytest.mark.parametrize(("ggml_type", "tolerance"), [(Q8_0, 0.02), (Q4_K, 0.1)])
@pytest.mark.parametrize("num_rows", [1, 33])
def test_a_product_in_plain_memory_is_the_product(ggml_type: int, tolerance: float, num_rows: int) -> None:
    draw = np.random.default_rng(7)
    weights = draw.standard_normal((64, 512), np.float32)
    rows = draw.standard_normal((num_rows, 512), np.float32)
    product = multiply(ggml_type, quantize_rows(ggml_type, weights), rows)
    assert product is not None
    exact = rows @ weights.T
    assert np.abs(product - exact).max() < tolerance * np.abs(exact).max()


@pytest.mark.parametrize(("share", "is_wrong"), [(0.0, False), (3e-7, False), (0.2, True), (math.nan, True)])
def test_rounding_is_right_and_nan_is_wrong(share: float, is_wrong: bool) -> None:
    assert Deviation("AMX", "q4_K", 33, share).is_wrong is is_wrong
