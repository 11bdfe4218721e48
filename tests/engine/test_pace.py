"""Prompt tokens beside streams: as many as keep their pace, whatever the machine costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.pace import FEWEST_TOKENS, SLOWDOWN, Pace

N_BATCH = 512


def learned(stream_seconds: float, token_seconds: float, num_streams: int = 4) -> Pace:
    pace = Pace()
    for _ in range(30):
        pace.observe(num_streams, 0, stream_seconds)
        num_rows = pace.budget(num_streams, N_BATCH)
        pace.observe(num_streams, num_rows, stream_seconds + token_seconds * num_rows)
    return pace


@pytest.mark.parametrize(("stream_seconds", "token_seconds"), [(0.06, 0.004), (0.04, 0.0005), (0.01, 0.00001)])
def test_a_mixed_step_is_as_slow_as_allowed_and_no_slower(stream_seconds: float, token_seconds: float) -> None:
    num_tokens = learned(stream_seconds, token_seconds).budget(4, N_BATCH)
    allowed = (SLOWDOWN - 1) * stream_seconds / token_seconds
    assert num_tokens == pytest.approx(min(max(allowed, FEWEST_TOKENS), N_BATCH - 4), rel=0.02)


def test_without_streams_a_prompt_gets_the_whole_batch() -> None:
    assert Pace().budget(0, N_BATCH) == N_BATCH
    assert learned(0.01, 1.0).budget(0, N_BATCH) == N_BATCH


def test_before_anything_was_measured_it_is_careful() -> None:
    assert Pace().budget(1, N_BATCH) == FEWEST_TOKENS


def test_one_strange_step_changes_little() -> None:
    pace = learned(0.05, 0.001)
    before = pace.budget(4, N_BATCH)
    pace.observe(4, before, 60.0)
    assert pace.budget(4, N_BATCH) > before / 2


def test_the_nearest_number_of_streams_stands_in_for_one_not_measured() -> None:
    assert learned(0.05, 0.001, 4).budget(5, N_BATCH) == learned(0.05, 0.001, 5).budget(5, N_BATCH)


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 512), st.floats(0, 100)), max_size=40),
    st.integers(0, 64),
    st.integers(1, 2048),
)
def test_neither_side_starves_whatever_was_measured(
    steps: list[tuple[int, int, float]], num_streams: int, n_batch: int
) -> None:
    pace = Pace()
    for step in steps:
        pace.observe(*step)
    budget = pace.budget(num_streams, n_batch)
    assert min(FEWEST_TOKENS, max(n_batch - num_streams, 0)) <= budget <= max(n_batch - num_streams, 0)
