"""Saved states: found by tokens, restored whole or not at all, and never more of them than allowed."""

from __future__ import annotations

import gc
import os
import stat
import struct
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine import kv_file
from mm35local.engine.api import StoreUse
from mm35local.engine.kv_file import Bytes, Int32Array
from mm35local.engine.kv_store import ABANDONED_SECONDS, HEAD, WORTH_SAVING, KvStore
from mm35local.engine.prefix_cache import num_common

MARK, OTHER_MARK = b"a" * 32, b"b" * 32


def ids(*tokens: int) -> Int32Array:
    return np.array(tokens, dtype=np.int32)


def state_of(number: int, num_bytes: int = 1000) -> Bytes:
    return np.full(num_bytes, number, dtype=np.uint8)


def open_store(folder: Path, *, mark: bytes = MARK, disk_bytes: int = 100_000, ram_bytes: int = 100_000) -> KvStore:
    return KvStore(folder, mark, disk_bytes=disk_bytes, ram_bytes=ram_bytes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KvStore]:
    store = open_store(tmp_path)
    yield store
    store.close()


def loaded(store: KvStore, tokens: Int32Array) -> tuple[int, int] | None:
    """(first byte, number of common tokens) of what a prompt finds."""
    saved, num_common = store.find(tokens)
    if saved is None:
        return None
    state = store.read(saved).result()
    store.book_read(saved, state)
    return None if state is None else (int(state[0]), num_common)


BRANCHES = st.tuples(st.integers(0, 90), st.integers(1, 3), st.integers(0, 90))
"""(tokens of what all begin with, the token that follows, and how often it does)."""


@given(st.lists(BRANCHES, min_size=1, max_size=12), BRANCHES)
@settings(max_examples=60, deadline=None)
def test_a_glance_at_first_tokens_misses_nothing_that_is_of_use(
    tmp_path_factory: pytest.TempPathFactory, branches: list[tuple[int, int, int]], asked: tuple[int, int, int]
) -> None:
    def is_replaced(other: Int32Array, by: Int32Array) -> bool:
        length = num_common(other, by)
        return len(other) - length < WORTH_SAVING and length >= min(HEAD, len(other), len(by))

    def tokens_of(branch: tuple[int, int, int]) -> Int32Array:
        num_shared, token_id, count = branch
        return ids(*range(100, 100 + num_shared), *[token_id] * count)

    store = open_store(tmp_path_factory.mktemp("kv"), disk_bytes=1 << 20)
    known: list[Int32Array] = []
    for branch in branches:
        tokens = tokens_of(branch)
        assert store.covers(tokens) == any(num_common(other, tokens) == len(tokens) for other in known)
        if not store.covers(tokens):
            store.put(tokens, state_of(1, 10))
            known = [other for other in known if not is_replaced(other, tokens)] + [tokens]
    prompt = tokens_of((*asked[:2], asked[2] + 1))
    saved, length = store.find(prompt)
    longest = max(num_common(other, prompt[:-1]) for other in known)
    assert length == longest or longest < HEAD
    assert saved is None or num_common(saved.tokens, prompt[:-1]) == length
    store.close()


def test_the_longest_beginning_is_found_and_the_last_token_never_counts(store: KvStore) -> None:
    store.put(ids(1, 2, 3), state_of(7))
    store.put(ids(1, 5, 6, 7), state_of(8))
    assert loaded(store, ids(1, 5, 6, 9)) == (8, 3)
    assert loaded(store, ids(1, 2, 3)) == (7, 2)
    assert loaded(store, ids(4, 4)) is None
    assert not store.accepts(ids(1, 5), 10), "a longer one has it all"
    assert store.accepts(ids(2), 10)
    assert not store.accepts(ids(2), 100_001), "more than may be kept at all"


def test_its_use_counts_what_is_in_ram_and_what_is_on_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path, ram_bytes=2500)
    for number in (1, 2):
        store.put(ids(number, 2, 3), state_of(number))
        store.flush()
    assert store.use == StoreUse(2, 2000, 2, 2000)
    store.put(ids(3), state_of(3, 1500))
    store.flush()
    store.put(ids(4), state_of(4, 100))
    assert store.use == StoreUse(2, 1600, 3, 3500), "the oldest are on disk alone, and the newest only in RAM"
    store.close()
    again = open_store(tmp_path)
    assert (again.use.num_ram_states, again.use.num_disk_states) == (0, 4)
    saved, _ = again.find(ids(1, 2, 3))
    assert saved is not None
    again.book_read(saved, None)
    assert again.use.num_disk_states == 3, "what cannot be read is given up"
    again.close()


def test_a_longer_one_takes_the_place_of_its_beginning(store: KvStore, tmp_path: Path) -> None:
    store.put(ids(1, 2), state_of(1))
    store.put(ids(1, 2, 3), state_of(2))
    store.flush()
    assert len(list(tmp_path.iterdir())) == 1


def test_it_takes_the_place_of_what_only_ends_otherwise_but_not_of_what_ends_much_otherwise(store: KvStore) -> None:
    """An answer that comes back otherwise than it was said leaves a short end with every turn."""
    shared = range(100)
    store.put(ids(*shared, *[7] * (WORTH_SAVING - 1)), state_of(1))
    store.put(ids(*shared, *[8] * WORTH_SAVING), state_of(2))
    assert (loaded(store, ids(*shared, 7, 7)), store.use.num_ram_states) == ((2, 100), 1)
    store.put(ids(*shared, 9), state_of(3))
    assert loaded(store, ids(*shared, 8, 8)) == (2, 101)
    assert loaded(store, ids(*shared, 9, 9)) == (3, 101)


def test_what_ram_has_room_for_is_written_after_a_while_and_what_it_has_none_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path, ram_bytes=2500)
    for length in (1, 2, 3):
        store.put(ids(*range(length)), state_of(length))
    assert store.has_ram_for(1500)
    assert not store.has_ram_for(1501)
    time.sleep(0.2)
    assert not list(tmp_path.iterdir()), "only the last of them would be worth a file, and that not yet"
    store.put(ids(9), state_of(9, 1600))
    until(lambda: len(list(tmp_path.glob(f"*{kv_file.SUFFIX}"))) == 2)
    store.flush()
    monkeypatch.setattr("mm35local.engine.kv_store.SECONDS_IN_RAM", 0.05)
    store.put(ids(8), state_of(8, 100))
    until(lambda: len(list(tmp_path.glob(f"*{kv_file.SUFFIX}"))) == 3)
    store.close()


def test_a_state_that_was_given_up_takes_no_memory_while_others_wait_for_the_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    state = state_of(1)
    store.put(ids(1), state)
    gone = weakref.ref(state)
    del state
    store.put(ids(1, 2), state_of(2))
    gc.collect()
    assert gone() is None
    store.close()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_closed_is_found_by_the_next_process_and_by_no_other_model(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put(ids(1, 2, 3), state_of(7))
    store.close()
    [path] = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again, other = open_store(tmp_path), open_store(tmp_path, mark=OTHER_MARK)
    assert loaded(again, ids(1, 2, 3, 4)) == (7, 3)
    assert loaded(other, ids(1, 2, 3, 4)) is None
    assert other.num_disk_bytes >= 1000, "it counts all the same"
    again.close()
    other.close()


@pytest.mark.parametrize("position", [0, 9, 40, 50, 90, 100, -1])
def test_a_flipped_bit_anywhere_is_never_restored(tmp_path: Path, position: int) -> None:
    store = open_store(tmp_path)
    store.put(ids(1, 2, 3), state_of(7))
    store.close()
    [path] = tmp_path.iterdir()
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 1
    path.write_bytes(damaged)
    again = open_store(tmp_path)
    assert loaded(again, ids(1, 2, 3, 4)) is None
    again.close()


@settings(max_examples=50, deadline=None)
@given(num_tokens=st.integers(0, 12), state_bytes=st.integers(0, 64), rest=st.binary(max_size=160))
def test_no_other_bytes_are_taken_for_a_state(
    num_tokens: int, state_bytes: int, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("kv") / f"x{kv_file.SUFFIX}"
    path.write_bytes(kv_file.MAGIC + MARK + struct.pack("<IQ", num_tokens, state_bytes) + rest)
    header = kv_file.read_header(path, MARK)
    assert header is None or kv_file.read_state(path, header) is None


def test_the_least_recently_used_goes_when_the_disk_is_full(tmp_path: Path) -> None:
    store = open_store(tmp_path, disk_bytes=3500, ram_bytes=0)
    for number in (1, 2, 3):
        store.put(ids(number, number), state_of(number))
        store.flush()
    assert loaded(store, ids(1, 1, 0)) == (1, 2)
    store.put(ids(4, 4), state_of(4))
    assert loaded(store, ids(2, 2, 0)) is None
    assert [loaded(store, ids(number, number, 0)) for number in (1, 3, 4)] == [(1, 2), (3, 2), (4, 2)]
    store.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3500


def test_a_disk_that_fails_costs_the_file_only(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    store = open_store(folder, ram_bytes=1500)
    folder.rmdir()
    store.put(ids(1, 2), state_of(1))
    store.flush()
    assert store.use == StoreUse(1, 1000, 0, 0)
    assert loaded(store, ids(1, 2, 3)) == (1, 2)
    folder.mkdir()
    store.put(ids(4, 5), state_of(2))
    store.flush()  # RAM has room for one of them
    assert loaded(store, ids(1, 2, 3)) is None
    assert loaded(store, ids(4, 5, 6)) == (2, 2)
    assert store.use == StoreUse(1, 1000, 1, 1000)
    store.close()


def test_a_state_that_ram_has_no_room_for_leaves_it_once_it_is_written_and_others_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path, ram_bytes=2000)
    for number in (1, 2):
        store.put(ids(number, 2, 3), state_of(number, 900))
    store.flush()
    large = state_of(3, 9000)
    store.put(ids(3), large)
    gone = weakref.ref(large)
    del large
    until(lambda: gone() is None)
    assert store.use == StoreUse(2, 1800, 3, 10_800)
    assert loaded(store, ids(3, 3)) == (3, 1)
    assert store.use == StoreUse(2, 1800, 3, 10_800), "nor does what is read push out the others"
    store.close()


def test_a_large_state_that_waits_pushes_out_no_small_one(tmp_path: Path) -> None:
    store = open_store(tmp_path, ram_bytes=2000)
    store.put(ids(1), state_of(1, 900))
    store.put(ids(2), state_of(2, 9000))
    until(lambda: store.use == StoreUse(1, 900, 2, 9900))
    assert loaded(store, ids(1, 1)) == (1, 1)
    store.close()


def test_no_more_waits_for_the_disk_than_a_few_times_what_ram_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mm35local.engine.kv_store.LITTLE_BYTES", 0)
    monkeypatch.setattr(kv_file, "write", lambda *_: time.sleep(0.3))
    store = open_store(tmp_path, ram_bytes=1000)
    assert store.accepts(ids(1), 90_000), "nothing waits: as large as it may be"
    store.put(ids(1), state_of(1, 3000))
    assert store.accepts(ids(2), 1000)
    assert not store.accepts(ids(2), 1001)
    store.close()


def test_of_states_that_share_as_much_the_shortest_is_read(store: KvStore) -> None:
    shared = range(HEAD)
    store.put(ids(*shared, *[7] * WORTH_SAVING), state_of(1))
    store.put(ids(*shared, *[8] * 2 * WORTH_SAVING), state_of(2))
    assert loaded(store, ids(*shared, 9, 9)) == (1, HEAD)


def test_what_a_process_left_half_written_is_removed_and_no_other_ones_work(tmp_path: Path) -> None:
    left, worked_on = tmp_path / "left.part", tmp_path / "worked-on.part"
    for path in (left, worked_on):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * ABANDONED_SECONDS
    os.utime(left, (long_ago, long_ago))
    open_store(tmp_path).close()
    assert list(tmp_path.iterdir()) == [worked_on]


def test_a_fingerprint_changes_with_the_file_and_the_context(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(1_000_000))
    first = kv_file.fingerprint(path, "f16")
    assert first == kv_file.fingerprint(path, "f16")
    assert first != kv_file.fingerprint(path, "q8_0")
    path.write_bytes(bytes(500_000) + b"x" + bytes(499_999))
    assert first != kv_file.fingerprint(path, "f16")
