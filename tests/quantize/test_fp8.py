"""The FP8 table against the format's own landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantize.fp8 import E4M3_TABLE, scaled_table
from tests.pocket.fp8 import encode, from_bf16, to_bf16


@pytest.mark.parametrize(
    ("code", "value"),
    [(0x00, 0.0), (0x01, 2.0**-9), (0x07, 7 * 2.0**-9), (0x08, 2.0**-6), (0x38, 1.0), (0x3C, 1.5), (0x7E, 448.0)],
)
def test_landmarks(code: int, value: float) -> None:
    assert E4M3_TABLE[code] == value
    assert E4M3_TABLE[code | 0x80] == -value


def test_two_codes_are_nan_and_the_rest_ascend() -> None:
    assert np.flatnonzero(np.isnan(E4M3_TABLE)).tolist() == [0x7F, 0xFF]
    assert (np.diff(E4M3_TABLE[:0x7F]) > 0).all()
    assert np.signbit(E4M3_TABLE[0x80])


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        E4M3_TABLE[0] = 1.0


@given(st.floats(2**-20, 2**20, width=32))
def test_a_scaled_table_rounds_each_product_once(scale: float) -> None:
    exact = E4M3_TABLE.astype(np.float64) * scale
    np.testing.assert_array_equal(scaled_table(scale), exact.astype(np.float32))


@given(npst.arrays(np.float32, 20, elements=st.floats(-1e3, 1e3, width=32)).filter(lambda values: values.any()))
def test_the_pockets_encoder_finds_the_nearest_code(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    largest = np.abs(values).max()
    if largest < 1e-30:
        return
    codes, scale = encode(values)
    finite = scaled_table(float(scale))[~np.isnan(E4M3_TABLE)]
    error = np.abs(scaled_table(float(scale))[codes] - values)
    best = np.abs(finite[None, :] - values[:, None]).min(axis=1)
    np.testing.assert_allclose(error, best, rtol=1e-3, atol=largest * 1e-6)
    assert from_bf16(to_bf16(np.array([scale])))[0] == scale
