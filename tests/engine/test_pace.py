"""Prompt tokens beside streams: as many as keep their pace, whatever the machine costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.pace import FIRST_ROWS, NUM_FRESH, NUM_PROBES, SLOWDOWN, Pace

N_BATCH = 512


def alone(num_streams: int, seconds: float, pace: Pace | None = None) -> Pace:
    pace = pace or Pace()
    for _ in range(NUM_PROBES):
        pace.observe(num_streams, 0, 0, seconds)
    return pace


def learned(stream_seconds: float, token_seconds: float, num_streams: int = 4) -> Pace:
    pace = Pace()
    for _ in range(30):
        alone(num_streams, stream_seconds, pace)
        num_rows = pace.prompt_budget(num_streams, N_BATCH)
        pace.observe(num_streams, 0, num_rows, stream_seconds + token_seconds * num_rows)
    return pace


@pytest.mark.parametrize(
    ("stream_seconds", "token_seconds"), [(0.06, 0.004), (0.04, 0.0005), (0.01, 0.00001), (0.04, 0.04), (0.01, 1.0)]
)
def test_a_mixed_step_is_as_slow_as_allowed_and_no_slower(stream_seconds: float, token_seconds: float) -> None:
    num_tokens = learned(stream_seconds, token_seconds).prompt_budget(4, N_BATCH)
    allowed = int((SLOWDOWN - 1) * stream_seconds / token_seconds + 1e-9)
    assert num_tokens == pytest.approx(min(max(allowed, 1), N_BATCH - 4), rel=0.02)


def test_without_streams_a_prompt_gets_the_whole_batch() -> None:
    assert Pace().prompt_budget(0, N_BATCH) == N_BATCH
    assert learned(0.01, 1.0).prompt_budget(0, N_BATCH) == N_BATCH


def test_before_anything_was_measured_it_is_careful() -> None:
    pace = alone(2, 0.05)
    assert pace.prompt_budget(1, N_BATCH) == FIRST_ROWS
    assert pace.draft_budget(4, 0, 48) == FIRST_ROWS


def test_what_streams_take_alone_is_measured_before_anything_is_put_beside_them_and_now_and_then_again() -> None:
    pace = Pace()
    assert pace.prompt_budget(1, N_BATCH) == pace.draft_budget(1, 0, 48) == pace.draft_budget(4, 0, 48) == 0
    pace.observe(4, 0, 0, 0.05)
    assert pace.prompt_budget(4, N_BATCH) == 0, "one may have been slow by accident"
    pace.observe(4, 0, 0, 0.05)
    steps = 0
    while pace.prompt_budget(4, N_BATCH):
        steps += 1
        assert pace.prompt_budget(8, N_BATCH), "about as many"
        assert not pace.prompt_budget(9, N_BATCH)
        assert not pace.prompt_budget(1, N_BATCH)
        pace.observe(4, 2, 10, 0.1)
    assert steps == NUM_FRESH + 1
    assert pace.draft_budget(4, 0, 48) == 0
    pace.observe(4, 0, 0, 1.0)
    pace.observe(4, 0, 0, 7.0)
    assert pace.prompt_budget(4, N_BATCH) == pytest.approx(2 / 0.005, rel=0.1), "the old measurement is forgotten"


def test_one_strange_step_changes_little() -> None:
    pace = learned(0.05, 0.001)
    before = pace.prompt_budget(4, N_BATCH)
    pace.observe(4, 0, before, 60.0)
    assert pace.prompt_budget(4, N_BATCH) > before / 2


def test_the_nearest_number_of_streams_stands_in_for_one_not_measured() -> None:
    assert learned(0.05, 0.001, 4).prompt_budget(5, N_BATCH) == learned(0.05, 0.001, 5).prompt_budget(5, N_BATCH)


def test_the_first_step_beside_streams_tells_at_once_that_tokens_cost_more_than_in_full_batches() -> None:
    pace = learned(0.04, 0.004)
    for _ in range(20):
        pace.observe(0, 0, N_BATCH, N_BATCH * 0.004)
    pace.observe(4, 0, 20, 0.04 + 20 * 0.012)
    assert pace.prompt_budget(4, N_BATCH) == int((SLOWDOWN - 1) * 0.04 / 0.012)


def test_drafts_keep_the_pace_of_the_streams_beside() -> None:
    pace = alone(4, 0.04)
    pace.observe(4, 16, 0, 0.04 + 16 * 0.008)
    assert pace.draft_budget(4, 0, 48) == int((SLOWDOWN - 1) * 0.04 / 0.008)
    assert pace.draft_budget(4, 0, 3) == 3
    alone(1, 0.04, pace)
    assert pace.draft_budget(1, 0, 48) == 48, "nobody waits for it"


@pytest.mark.parametrize("num_drafts", [0, 2, 10, 48])
def test_prompts_and_drafts_share_what_a_step_may_take(num_drafts: int) -> None:
    """However many drafts the streams would have, prompts get half of it and both together no more than all."""
    stream, draft, token = 0.04, 0.004, 0.005
    pace, seconds = alone(4, stream), 0.0
    pace.observe(4, 16, 0, stream + 16 * draft)
    for _ in range(60):
        num_tokens = pace.prompt_budget(4, N_BATCH)
        drafts = min(num_drafts, pace.draft_budget(4, num_tokens, 48))
        seconds = stream + drafts * draft + num_tokens * token
        pace.observe(4, drafts, num_tokens, seconds)
    assert num_tokens * token >= (SLOWDOWN - 1) * stream / 2 - token
    assert (SLOWDOWN - 0.4) * stream <= seconds <= (SLOWDOWN + 0.01) * stream


STEPS = st.lists(
    st.tuples(st.integers(0, 64), st.integers(0, 48), st.integers(0, 512), st.floats(1e-4, 100)).filter(
        lambda step: step[0] or (step[2] and not step[1])
    ),
    max_size=40,
)


@given(STEPS, st.floats(1e-3, 0.1), st.floats(1e-4, 0.1))
def test_whatever_was_measured_before_is_forgotten(
    steps: list[tuple[int, int, int, float]], draft: float, token: float
) -> None:
    stream, pace, seconds = 0.04, Pace(), 0.0
    for step in steps:
        pace.observe(*step)
    for _ in range(150):
        alone(4, stream, pace)
        num_drafts = pace.draft_budget(4, 0, 16)
        pace.observe(4, num_drafts, 0, stream + num_drafts * draft)
        num_tokens = pace.prompt_budget(4, N_BATCH)
        seconds = stream + num_tokens * token
        pace.observe(4, 0, num_tokens, seconds)
    assert seconds <= max(1.05 * SLOWDOWN * stream, stream + token), "but for the one token that a prompt gets always"


@given(
    STEPS,
    st.integers(0, 64),
    st.integers(1, 2048),
)
def test_neither_side_starves_whatever_was_measured(
    steps: list[tuple[int, int, int, float]], num_streams: int, n_batch: int
) -> None:
    pace = Pace()
    for step in steps:
        pace.observe(*step)
    alone(num_streams, 0.04, pace)
    room = max(n_batch - num_streams, 0)
    assert min(1, room) <= pace.prompt_budget(num_streams, n_batch) <= room
    assert 0 <= pace.draft_budget(num_streams, 16, room) <= room
