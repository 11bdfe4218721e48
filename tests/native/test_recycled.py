"""Memory that is used again: never while anybody can still read it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.native import recycled
from mm35local.native.recycled import MOST_SPARE, RecycledMemory


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_what_nobody_refers_to_is_used_again_also_for_a_little_more() -> None:
    memory = RecycledMemory()
    first = memory.take(1_000_000)
    known = address(first)
    del first
    assert address(memory.take(1_040_000)) == known


def test_a_part_of_an_array_keeps_all_of_it() -> None:
    memory = RecycledMemory()
    part = memory.take(1000)[:10]
    part[:] = 7
    gc.collect()
    other = memory.take(900)
    other[:] = 1
    assert part.tolist() == [7] * 10
    assert memory.num_spare_bytes == 0


def test_little_is_kept_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycled, "MOST_SPARE_BYTES", 3000)
    memory = RecycledMemory()
    arrays = [memory.take(1024) for _ in range(5)]
    del arrays
    assert memory.num_spare_bytes == 2048


def test_a_small_array_takes_no_large_block() -> None:
    memory = RecycledMemory()
    large = memory.take(1 << 20)
    del large
    small = memory.take(1 << 18)
    assert memory.num_spare_bytes == 1 << 20
    assert len(small) == 1 << 18


def test_of_many_small_ones_few_are_kept() -> None:
    memory = RecycledMemory()
    arrays = [memory.take(1024) for _ in range(100)]
    last = address(arrays[-1])
    while arrays:
        del arrays[0]
    assert memory.num_spare_bytes == MOST_SPARE * 1024
    assert last in {address(array) for array in [memory.take(1024) for _ in range(MOST_SPARE)]}


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9)), max_size=60))
def test_no_two_arrays_share_memory(steps: list[tuple[int, int]]) -> None:
    memory = RecycledMemory()
    held: list[tuple[int, np.ndarray]] = []
    for number, (num_bytes, dropped) in enumerate(steps):
        array = memory.take(num_bytes)
        assert len(array) == num_bytes
        array[:] = number % 256
        held.append((number % 256, array))
        if dropped < len(held):
            del held[dropped]
        del array
        assert all((kept == value).all() for value, kept in held)
