"""Numbers as people read them, and none where there is nothing to read off."""

from __future__ import annotations

import pytest

from mm35local.tui.figures import bar, count, duration, load_rate, speed


@pytest.mark.parametrize(
    ("num_tokens", "seconds", "told"),
    [(21, 2.0, "10.0 tok/s"), (2, 0.1, "10.0 tok/s"), (3, 0.0007, ""), (2, 0.0, ""), (1, 5.0, ""), (9, None, "")],
)
def test_a_speed_is_told_where_its_time_says_something(num_tokens: int, seconds: float | None, told: str) -> None:
    assert speed(num_tokens, seconds) == told


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (262_144, "262k"), (99_960, "100.0k")]
)
def test_counts(number: int, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3_660, "1 h 01 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_load_tells_its_rate_when_it_is_known() -> None:
    assert load_rate(1.2e9, 35) == " · 1.2 GB/s, 35 s left"
    assert load_rate(1.2e9, 90) == " · 1.2 GB/s, 1 min 30 s left"
    assert load_rate(0.0, 35) == load_rate(1.2e9, None) == ""


def test_a_bar_is_as_wide_as_asked_and_full_at_one() -> None:
    assert [bar(share, 4) for share in (-1, 0, 0.5, 1, 2)] == ["    ", "    ", "██  ", "████", "████"]
    assert bar(1 / 32, 4) == "▏   "
