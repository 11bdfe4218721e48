"""Where a prompt goes on, and what is given up first."""

from __future__ import annotations

import numpy as np

from mm35local.engine.prefix_cache import Hit, PrefixCache, num_common

NUM_SEQUENCES = 4


def ids(*tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(tokens, dtype=np.int32)


def filled(*sequences: list[int]) -> PrefixCache:
    """Sequence i holds the i-th list and is idle; the first is the least recently used."""
    cache = PrefixCache(NUM_SEQUENCES)
    for tokens in sequences:
        sequence = cache.open()
        cache.append(sequence, tokens)
        cache.release(sequence)
    assert cache.fault(NUM_SEQUENCES) is None
    return cache


def test_the_longest_common_beginning_wins_and_the_last_token_is_never_counted() -> None:
    cache = filled([1, 2, 9, 9], [1, 2, 3, 4], [1, 2, 3])
    assert cache.find(ids(1, 2, 3, 4, 5)) == Hit(1, 4)
    assert cache.find(ids(1, 2, 3, 4)) == Hit(2, 3), "which can be taken over"
    assert cache.find(ids(1)) == Hit(None, 0)
    assert cache.find(ids(7, 7)) == Hit(None, 0)


def test_a_sequence_that_is_shared_to_its_end_is_taken_over_and_another_forked() -> None:
    cache = filled([1, 2, 3], [4, 5, 6])
    assert cache.takes_over(cache.find(ids(1, 2, 3, 9)))
    fork = cache.find(ids(4, 5, 9))
    assert not cache.takes_over(fork)
    target = cache.open()
    cache.fork(1, target, 2)
    cache.append(target, [9])
    assert (cache.cells.num_used, cache.num_tokens(target)) == (7, 3)
    assert cache.find(ids(4, 5, 9, 9)) == Hit(target, 3)


def test_a_running_sequence_is_never_taken_over_nor_given_up() -> None:
    cache = filled([1, 2, 3])
    cache.resume(0)
    assert not cache.takes_over(cache.find(ids(1, 2, 3, 4)))
    assert cache.victim() is None


def test_the_least_recently_used_goes_first_and_a_fork_counts_as_use() -> None:
    cache = filled([1] * 10, [2] * 10, [3] * 10)
    assert cache.victim() == 0
    cache.fork(0, cache.open(), 5)
    assert cache.victim() == 1
    assert cache.victim(spared=[1]) == 2


def test_the_end_of_a_long_prompt_outlasts_a_short_one_that_is_younger() -> None:
    cache = filled([1] * 60_000, [2] * 100, [3])
    assert cache.victim() == 1


def test_what_a_longer_sequence_covers_is_worth_nothing() -> None:
    cache = filled([1, 2], [1, 3], [1, 2, 3])
    assert cache.covered_by(2) == [0]


def test_common_beginnings_are_counted_to_the_first_difference() -> None:
    assert num_common(ids(), ids(1)) == 0
    assert num_common(ids(1, 2, 3), ids(1, 2, 4)) == 2
    assert num_common(ids(1, 2), ids(1, 2, 3)) == 2
    assert num_common(ids(9, 2), ids(1, 2)) == 0
