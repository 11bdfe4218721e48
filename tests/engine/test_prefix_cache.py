"""Which slot a prompt gets, and what is thrown away first."""

from __future__ import annotations

from mm35local.engine.prefix_cache import PrefixCache


def filled(*sequences: list[int]) -> PrefixCache:
    """Slot i holds the i-th sequence; the first is the least recently used."""
    cache = PrefixCache(len(sequences))
    slots = [cache.take([0])[0] for _ in sequences]
    for slot, sequence in zip(slots, sequences, strict=True):
        cache.put(slot, sequence)
    return cache


def test_the_longest_common_beginning_wins() -> None:
    cache = filled([1, 2, 9, 9], [1, 2, 3, 4], [1, 2, 3])
    assert cache.take([1, 2, 3, 4, 5]) == (1, 4)
    assert cache.num_cells == 7


def test_the_last_token_is_never_counted() -> None:
    assert filled([1, 2, 3]).take([1, 2, 3]) == (0, 2)
    assert filled([1, 2, 3]).take([1]) == (0, 0)


def test_a_short_hit_does_not_wipe_out_a_long_sequence_while_a_slot_is_empty() -> None:
    cache = filled(list(range(100)), [])
    assert cache.take([0, 1, 55, 56]) == (1, 0)
    assert cache.num_cells == 100


def test_a_dropped_tail_still_hits() -> None:
    cache = filled([*range(100), *[7] * 400], [])
    assert cache.take([*range(100), 8, 8]) == (0, 100)


def test_without_an_empty_slot_the_oldest_goes_and_keeps_what_fits() -> None:
    cache = filled([5, *range(100)], [6, *range(100)])
    assert cache.take([5, 99, 99]) == (0, 1)


def test_eviction_is_least_recently_used_first_and_keeps_the_slot() -> None:
    cache = filled([1, 1], [2, 2, 2], [])
    assert cache.evict() == 0
    assert cache.num_cells == 3
    assert cache.evict() == 1
    assert cache.evict() is None
    assert cache.num_cells == 0
    assert {cache.take([9])[0] for _ in range(3)} == {0, 1, 2}
    assert not cache.has_slot
