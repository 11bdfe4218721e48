"""The index finds what a plain search over all places finds, however it was fed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine import ngram
from mm35local.engine.ngram import LENGTH, MAX_AGREEMENT, NgramIndex

tokens_strategy = st.lists(st.integers(-1, 2), max_size=60)


def longest_agreement(tokens: list[int]) -> int:
    """Of all places before the end, by brute force; 0 if fewer than LENGTH tokens agree."""
    longest = 0
    for place in range(LENGTH, len(tokens)):
        count = 0
        while count < min(place, MAX_AGREEMENT) and tokens[place - count - 1] == tokens[-count - 1] >= 0:
            count += 1
        longest = max(longest, count)
    return longest if longest >= LENGTH else 0


@given(tokens_strategy, tokens_strategy, st.integers(1, 9))
def test_what_is_proposed_followed_the_same_tokens_before(old: list[int], new: list[int], num_wanted: int) -> None:
    tokens = list(old)
    index = NgramIndex(tokens)
    for token_id in new:
        tokens.append(token_id)
        proposed, agreement = index.propose(num_wanted)
        assert agreement <= max(longest_agreement(tokens), 1)
        assert (agreement >= LENGTH) == (longest_agreement(tokens) > 0)
        assert len(proposed) <= num_wanted
        assert all(token_id >= 0 for token_id in proposed)
        if proposed:
            ending = tokens[len(tokens) - agreement :] + proposed[:1]
            assert any(tokens[at : at + len(ending)] == ending for at in range(len(tokens)))


@given(tokens_strategy)
def test_of_few_places_the_longest_agreement_wins(tokens: list[int]) -> None:
    marked = [*range(100, 110), 7, *range(200, 210), 7, *range(103, 110)]
    _, agreement = NgramIndex([*tokens, *marked]).propose(4)
    assert agreement == 7
    assert NgramIndex([*tokens, *marked]).propose(4)[0] == [7, 200, 201, 202]


SOURCE = list(range(100, 160))


@pytest.mark.parametrize(
    ("written", "goes_on", "agreement"),
    [
        ([7], 111, 0),  # for 110
        ([7, 111], 112, 1),
        ([7, 8, 110], 111, 1),  # put in before 110
        ([112], 113, 1),  # 110 and 111 left out
        ([7, 111, 112, 113], 114, LENGTH),
    ],
)
def test_a_copy_goes_on_beside_what_was_changed(written: list[int], goes_on: int, agreement: int) -> None:
    tokens = [*SOURCE, 1, *SOURCE[:10]]
    index = NgramIndex(tokens)
    assert index.propose(2) == ([110, 111], 10)
    for token_id in written:
        tokens.append(token_id)
        proposed, found = index.propose(2)
    assert (proposed, found) == ([goes_on, goes_on + 1], agreement)


def test_a_copy_ends_where_nothing_agrees_for_long() -> None:
    tokens = [*SOURCE, 1, *SOURCE[:10]]
    index = NgramIndex(tokens)
    index.propose(1)
    for number in range(ngram.MAX_LOST + 1):
        tokens.append(1000 + number)
        proposed, _ = index.propose(1)
        assert bool(proposed) is (number < ngram.MAX_LOST)


def test_a_period_goes_on_beyond_the_end() -> None:
    assert NgramIndex([1, 2, 3, 1, 2, 3, 1]).propose(7)[0] == [2, 3, 1, 2, 3, 1, 2]


def test_nothing_is_read_from_or_into_an_image() -> None:
    image = -5
    assert NgramIndex([1, 2, 3, 8, image, image, 1, 2, 3]).propose(4)[0] == [8]
    assert NgramIndex([image, image, image, 4, image, image, image]).propose(4) == ([], 0)


def test_many_new_tokens_join_the_old_ones() -> None:
    tokens = list(range(50))
    index = NgramIndex(tokens)
    for number in range(3 * ngram.MAX_NEW):
        tokens.append(50 + number)
        index.propose(1)
    assert len(index._before) <= ngram.MAX_NEW + 1
    for place in (10, 60, len(tokens) - 9):
        tokens += tokens[place : place + 5]
        assert index.propose(2)[0] == tokens[place + 5 : place + 7]


def test_a_long_prompt_is_indexed_in_a_moment() -> None:
    tokens = [number * 7919 % 131_072 for number in range(200_000)]
    started = time.thread_time()
    index = NgramIndex(tokens)
    assert index.propose(1)[0] == [200_000 * 7919 % 131_072]
    assert time.thread_time() - started < 1.0
