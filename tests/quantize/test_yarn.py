"""The float that was wrong in the first GGUFs of this model."""

from __future__ import annotations

import pytest

from quantize.yarn import log_multiplier


@pytest.mark.parametrize(
    ("factor", "original_n_ctx", "mscale_all_dim", "apply_scale", "expected", "is_warned"),
    [
        (64.0, 4096, 0.0, None, 0.0, False),
        (64.0, 4096, None, None, 0.0, False),
        (64.0, 4096, 1.0, None, 0.0, True),
        (64.0, 4096, 1.0, True, 0.0, True),
        (64.0, 4096, None, True, 0.0, False),
        (64.0, 4096, None, False, 1.0, False),
        (64.0, 4096, 0.0, False, 1.0, True),
        (16.0, 16384, 1.0, None, 1.0, False),
        (16.0, 16384, 1.0, False, 1.0, False),
    ],
)
def test_rule(
    factor: float,
    original_n_ctx: int,
    mscale_all_dim: float | None,
    apply_scale: bool | None,
    expected: float,
    is_warned: bool,
) -> None:
    value, warning = log_multiplier(factor, original_n_ctx, mscale_all_dim, apply_scale)
    assert (value, warning is not None) == (expected, is_warned)


def test_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5, expected 0\.0 or 1\.0"):
        log_multiplier(64.0, 4096, 0.5, None)
