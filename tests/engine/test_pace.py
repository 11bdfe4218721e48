"""Prompt tokens beside streams: as many as keep their pace, whatever the machine costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.filling import BLOCK
from mm35local.engine.outbox import HOLD_SECONDS
from mm35local.engine.pace import FIRST_ROWS, NUM_FRESH, NUM_PROBES, PLAIN_SHARE, SLOWDOWN, Pace, PromptShare

N_BATCH = 512


def alone(num_streams: int, seconds: float, pace: Pace | None = None) -> Pace:
    pace = pace or Pace()
    for _ in range(NUM_PROBES):
        pace.observe(num_streams, 0, 0, seconds)
    return pace


def rested(pace: Pace, num_streams: int, seconds: float) -> Pace:
    """After the plain steps that are owed to the streams."""
    for _ in range(100):
        if pace.prompt_share(num_streams, N_BATCH).num_tokens:
            break
        pace.observe(num_streams, 0, 0, seconds)
    return pace


def learned(stream_seconds: float, token_seconds: float, num_streams: int = 4) -> Pace:
    pace = Pace()
    for _ in range(30):
        rested(alone(num_streams, stream_seconds, pace), num_streams, stream_seconds)
        num_rows = pace.prompt_share(num_streams, N_BATCH).num_tokens
        pace.observe(num_streams, 0, num_rows, stream_seconds + token_seconds * num_rows)
    return rested(pace, num_streams, stream_seconds)


@pytest.mark.parametrize(
    ("stream_seconds", "token_seconds"),
    [(0.06, 0.004), (0.04, 0.0005), (0.01, 0.00001), (0.04, 0.04), (0.01, 1.0), (0.002, 0.001)],
)
def test_a_mixed_step_is_as_slow_as_allowed_and_no_slower(stream_seconds: float, token_seconds: float) -> None:
    num_tokens = learned(stream_seconds, token_seconds).prompt_share(4, N_BATCH).num_tokens
    allowed = int(max((SLOWDOWN - 1) * stream_seconds, HOLD_SECONDS - stream_seconds) / token_seconds + 1e-9)
    assert num_tokens == pytest.approx(min(max(allowed, 1), N_BATCH - 4), rel=0.02)


def test_a_step_of_prompts_is_foretold_by_those_before_it() -> None:
    pace = Pace()
    assert pace.prompt_seconds(100) == math.inf
    pace.observe(0, 0, 4 * BLOCK, 0.08)
    assert pace.prompt_seconds(4 * BLOCK) == pace.prompt_seconds(3 * BLOCK + 1) == pytest.approx(0.08)
    assert pace.prompt_seconds(BLOCK) == pace.prompt_seconds(0) == pytest.approx(0.02)
    pace.observe(0, 0, BLOCK, 0.05)
    assert pace.prompt_seconds(BLOCK) == pytest.approx(0.05), "of so many rows itself, where that was measured"


def test_without_streams_a_prompt_gets_the_whole_batch() -> None:
    assert Pace().prompt_share(0, N_BATCH).num_tokens == N_BATCH
    assert learned(0.01, 1.0).prompt_share(0, N_BATCH).num_tokens == N_BATCH


def test_before_anything_was_measured_it_is_careful() -> None:
    pace = alone(2, 0.05)
    assert pace.prompt_share(1, N_BATCH).num_tokens == FIRST_ROWS
    assert pace.draft_budget(4, 0, 48) == FIRST_ROWS


def test_what_streams_take_alone_is_measured_before_anything_is_put_beside_them_and_now_and_then_again() -> None:
    pace = Pace()
    assert pace.prompt_share(1, N_BATCH).num_tokens == pace.draft_budget(1, 0, 48) == pace.draft_budget(4, 0, 48) == 0
    pace.observe(4, 0, 0, 0.05)
    assert pace.prompt_share(4, N_BATCH).num_tokens == 0, "one may have been slow by accident"
    pace.observe(4, 0, 0, 0.05)
    steps = 0
    while pace.prompt_share(4, N_BATCH).num_tokens:
        steps += 1
        assert pace.prompt_share(8, N_BATCH).num_tokens, "about as many"
        assert not pace.prompt_share(9, N_BATCH).num_tokens
        assert not pace.prompt_share(1, N_BATCH).num_tokens
        pace.observe(4, 2, 10, 0.1)
    assert steps == NUM_FRESH + 1
    assert pace.draft_budget(4, 0, 48) == 0
    pace.observe(4, 0, 0, 1.0)
    pace.observe(4, 0, 0, 7.0)
    assert pace.prompt_share(4, N_BATCH).num_tokens == pytest.approx(2 / 0.005, rel=0.1), (
        "the old measurement is forgotten"
    )


def test_one_strange_step_changes_little() -> None:
    pace = learned(0.05, 0.001)
    before = pace.prompt_share(4, N_BATCH).num_tokens
    pace.observe(4, 0, before, 60.0)
    assert pace.prompt_share(4, N_BATCH).num_tokens > before / 2


def test_the_nearest_number_of_streams_stands_in_for_one_not_measured() -> None:
    assert (
        learned(0.05, 0.001, 4).prompt_share(5, N_BATCH).num_tokens
        == learned(0.05, 0.001, 5).prompt_share(5, N_BATCH).num_tokens
    )


def test_the_first_step_beside_streams_tells_at_once_that_tokens_cost_more_than_in_full_batches() -> None:
    pace = alone(4, 0.04)
    for _ in range(20):
        pace.observe(0, 0, N_BATCH, N_BATCH * 0.004)
    assert pace.prompt_share(4, N_BATCH).num_tokens == FIRST_ROWS
    pace.observe(4, 0, 20, 0.04 + 20 * 0.012)
    assert pace.prompt_share(4, N_BATCH).num_tokens == int((SLOWDOWN - 1) * 0.04 / 0.012)


def dear_beside(apart: float, stream: float = 0.04) -> Pace:
    """A token takes 5 ms beside four streams, and `apart` in a step of two blocks."""
    pace = alone(4, stream)
    pace.observe(4, 0, 20, stream + 20 * 0.005)
    pace.observe(0, 0, 2 * BLOCK, 2 * BLOCK * apart)
    alone(4, stream, pace)
    return pace


def test_short_prompts_and_streams_take_turns_where_blocks_apart_are_cheaper() -> None:
    pace = dear_beside(apart=0.002)
    assert pace.prompt_share(4, N_BATCH, is_short=True) == PromptShare(BLOCK, is_apart=True)
    pace.observe(0, 0, BLOCK, BLOCK * 0.002)
    assert pace.prompt_share(4, N_BATCH, is_short=True) == PromptShare(0), "the streams' turn"
    pace.observe(4, 0, 0, 0.04)
    assert pace.prompt_share(4, N_BATCH, is_short=True).is_apart
    assert pace.prompt_share(4, N_BATCH) == PromptShare(16), "a long one would stop them again and again"


@pytest.mark.parametrize(("apart", "stream"), [(0.005, 0.04), (0.0049, 0.4), (0.003, 0.04)])
def test_blocks_stay_beside_where_they_are_no_cheaper_apart_or_too_long(apart: float, stream: float) -> None:
    assert not dear_beside(apart, stream).prompt_share(4, N_BATCH, is_short=True).is_apart


def test_a_break_that_nobody_notices_is_never_too_long() -> None:
    pace = dear_beside(apart=0.0015, stream=0.001)
    assert pace.prompt_share(4, N_BATCH, is_short=True) == PromptShare(BLOCK, is_apart=True)
    few = int((HOLD_SECONDS - 0.001) / 0.005)
    rested(pace, 4, 0.001)
    assert pace.prompt_share(4, BLOCK - 1, is_short=True) == PromptShare(few), "no block fits the batch"


def test_prompts_get_whole_blocks_where_those_keep_the_pace() -> None:
    pace = learned(0.05, 0.01)
    few = pace.prompt_share(4, N_BATCH).num_tokens
    assert 0 < few < BLOCK - 4
    assert pace.prompt_share(4, N_BATCH, block_seconds=[0.16, 0.2, 0.3]) == PromptShare(few)
    assert pace.prompt_share(4, N_BATCH, block_seconds=[0.1, 0.14, 0.2]) == PromptShare(2 * BLOCK - 4)
    assert pace.prompt_share(BLOCK + 1, N_BATCH, block_seconds=[0.1]).num_tokens <= few, "the streams are a block"
    quick = learned(0.001, 0.01)
    assert quick.prompt_share(4, N_BATCH, block_seconds=[0.02, 0.03, 0.04]) == PromptShare(2 * BLOCK - 4), "in a frame"


def test_quick_streams_get_plain_steps_behind_one_that_a_prompt_made_long() -> None:
    pace = learned(0.002, 0.001)
    pace.observe(4, 0, 31, 5.0)  # an image, or another program, got in between: nothing more is owed for that
    num_plain = 0
    while not pace.prompt_share(4, N_BATCH, block_seconds=[0.02]).num_tokens:
        pace.observe(4, 0, 0, 0.002)
        num_plain += 1
    assert num_plain == int(PLAIN_SHARE * HOLD_SECONDS / 0.002)
    slow = learned(0.05, 0.001)
    slow.observe(4, 0, 100, 0.15)
    assert slow.prompt_share(4, N_BATCH).num_tokens, "a plain step of those takes longer than what is owed"


def test_what_a_token_takes_beside_is_measured_again() -> None:
    pace = dear_beside(apart=0.001)
    for _ in range(NUM_FRESH):
        pace.observe(4, 0, 0, 0.04)
    assert pace.prompt_share(4, N_BATCH, is_short=True) == PromptShare(FIRST_ROWS)


def test_drafts_keep_the_pace_of_the_streams_beside() -> None:
    pace = alone(4, 0.04)
    pace.observe(4, 16, 0, 0.04 + 16 * 0.008)
    assert pace.draft_budget(4, 0, 48) == int((SLOWDOWN - 1) * 0.04 / 0.008)
    assert pace.draft_budget(4, 0, 3) == 3
    alone(1, 0.04, pace)
    assert pace.draft_budget(1, 0, 48) == 48, "nobody waits for it"


def test_drafts_that_were_dear_once_are_tried_again() -> None:
    pace = alone(2, 0.02)
    pace.observe(2, 4, 0, 0.8)  # the first step of so many rows stalled
    assert pace.draft_budget(2, 0, 100) == 0
    for _ in range(NUM_FRESH + 1):
        pace.observe(2, 0, 0, 0.02)
    assert pace.draft_budget(2, 0, 100) == FIRST_ROWS
    pace.observe(2, 4, 0, 0.022)
    assert pace.draft_budget(2, 0, 100) > FIRST_ROWS


def test_what_a_draft_takes_is_not_forgotten_beside_a_prompt_that_keeps_it_from_being_measured() -> None:
    pace = alone(2, 0.02)
    pace.observe(2, 4, 0, 0.02 + 4 * 0.004)
    for number in range(NUM_FRESH + 1):
        if number % 40 == 0:
            alone(2, 0.02, pace)
        budget = pace.draft_budget(2, 8, 100)
        pace.observe(2, budget, 8, 0.02 + 4 * 0.004 + 8 * 0.001)
    assert 0 < budget < FIRST_ROWS


@pytest.mark.parametrize("num_drafts", [0, 2, 10, 48])
def test_prompts_and_drafts_share_what_a_step_may_take(num_drafts: int) -> None:
    """However many drafts the streams would have, prompts get half of it and both together no more than all."""
    stream, draft, token = 0.04, 0.004, 0.005
    pace, seconds = alone(4, stream), 0.0
    pace.observe(4, 16, 0, stream + 16 * draft)
    for _ in range(60):
        num_tokens = pace.prompt_share(4, N_BATCH).num_tokens
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
        num_tokens = pace.prompt_share(4, N_BATCH).num_tokens
        seconds = stream + num_tokens * token
        pace.observe(4, 0, num_tokens, seconds)
    assert seconds <= max(1.05 * SLOWDOWN * stream, stream + token), "but for the one token that a prompt gets always"


@given(
    STEPS,
    st.integers(0, 64),
    st.integers(1, 2048),
    st.booleans(),
)
def test_neither_side_starves_whatever_was_measured(
    steps: list[tuple[int, int, int, float]], num_streams: int, n_batch: int, is_short: bool
) -> None:
    pace = Pace()
    for step in steps:
        pace.observe(*step)
    alone(num_streams, 0.04, pace)
    room = max(n_batch - num_streams, 0)
    assert 0 <= pace.draft_budget(num_streams, 16, room) <= room
    share = pace.prompt_share(num_streams, n_batch, is_short=is_short)
    if share.is_apart:
        pace.observe(0, 0, share.num_tokens, 1.0)
        assert not pace.prompt_share(num_streams, n_batch, is_short=is_short).is_apart
    assert min(1, room) <= share.num_tokens <= (n_batch if share.is_apart or not num_streams else room)
