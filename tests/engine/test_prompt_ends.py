"""Ends of prompts: known as long as their tokens are there, through forks, trims and saved states."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.prompt_ends import PromptEnds

LOGITS = np.array([0.5, -2.0, 3.0], dtype=np.float32)
STATE = np.arange(10, dtype=np.uint8)


def test_a_copy_is_kept_and_a_copy_is_given() -> None:
    ends, logits = PromptEnds(), LOGITS.copy()
    ends.keep(1, 7, logits)
    logits[:] = 0
    for _ in range(2):
        found = ends.behind(1, 7)
        assert found is not None
        assert found.tolist() == LOGITS.tolist()
        found[:] = -np.inf
    assert ends.behind(1, 6) is ends.behind(2, 7) is None


@given(st.integers(1, 9), st.integers(0, 9))
def test_forks_and_trims_keep_what_lies_within_them(num_tokens: int, num_kept: int) -> None:
    ends = PromptEnds()
    ends.keep(1, num_tokens, LOGITS)
    ends.fork(1, 2, num_kept)
    ends.trim(1, num_kept)
    is_within = num_tokens <= num_kept
    assert ends.is_kept(1, num_tokens) is ends.is_kept(2, num_tokens) is is_within


def test_a_later_prompt_of_the_sequence_takes_the_place_of_an_earlier_one() -> None:
    ends = PromptEnds()
    ends.keep(1, 4, LOGITS)
    ends.fork(1, 2, 9)
    ends.keep(1, 8, LOGITS)
    assert (ends.is_kept(1, 4), ends.is_kept(1, 8), ends.is_kept(2, 4)) == (False, True, True)


def test_an_end_goes_with_a_saved_state_and_comes_back() -> None:
    ends = PromptEnds()
    ends.keep(1, 7, LOGITS)
    for sequence in (1, 2):
        packed = ends.packed(sequence)
        assert len(packed) == ends.num_packed_bytes(sequence)
        restored = PromptEnds()
        assert restored.unpack(5, np.concatenate([STATE, packed])).tolist() == STATE.tolist()
        assert restored.is_kept(5, 7) is (sequence == 1)
    found = PromptEnds()
    found.unpack(5, np.concatenate([STATE, ends.packed(1)]))
    logits = found.behind(5, 7)
    assert logits is not None
    assert logits.tolist() == LOGITS.tolist()
