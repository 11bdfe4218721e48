"""Sequences that come back from disk: as if they had been computed, by the fake and by llama.cpp."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from mm35local.engine import kv_file, kv_pool
from mm35local.engine.api import Cancel, EngineConfig, Finished, RequestEvent, Started, StoreUse, Submit
from mm35local.engine.backend import Chunk
from mm35local.engine.core import EngineCore
from mm35local.engine.kv_store import KvStore
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.native.library import Library
from mm35local.types import Prompt, SamplingParams
from tests.engine.test_client import collect, running, tokens_of
from tests.fakes.backend import FakeBackend, expected_answer

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
N_CTX = 512
PROMPT = tuple(n % 60 + 1 for n in range(200))


def open_core(store: KvStore, backend: FakeBackend | None = None) -> EngineCore:
    backend = backend or FakeBackend(num_slots=2, capacity=N_CTX, n_batch=64)
    return EngineCore(backend, n_ctx=N_CTX, num_slots=2, n_batch=64, max_waiting=8, store=store)


def open_thin_core(store: KvStore, most_idle: int) -> EngineCore:
    """One that leaves ended sequences few of its many cells."""
    backend = FakeBackend(num_slots=2, capacity=2048, n_batch=64)
    backend.most_idle = most_idle
    return EngineCore(backend, n_ctx=2048, num_slots=2, n_batch=64, max_waiting=8, store=store)


def ask(core: EngineCore, prompt: tuple[int, ...], request_id: int) -> tuple[int, list[int]]:
    """(cached tokens, answer)"""
    core.submit(Submit(request_id, Prompt(prompt), GREEDY))
    events = core.take_events()
    while core.has_work:
        events += core.step()
    assert isinstance(events[-1], Finished)
    started = next(event for event in events if isinstance(event, Started))
    return started.num_cached_tokens, tokens_of(events)


def test_a_prefix_outlives_its_process(tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=0)
    core = open_core(store)
    assert ask(core, PROMPT, 1)[0] == 0
    core.save_cache()
    use = core.cell_use.store
    assert (use.num_ram_states, use.ram_bytes, use.num_disk_states) == (0, 0, 1)
    assert use.disk_bytes > 4 * len(PROMPT)
    store.close()
    again = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=0)
    core = open_core(again)
    longer = (*PROMPT[:150], 9, 9)
    assert ask(core, longer, 1) == (150, expected_answer(longer, GREEDY, N_CTX)), "also a part of it"
    assert core.fault() is None
    again.close()


def test_what_is_evicted_comes_back(tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_core(store)
    others = [tuple(n % 60 + 1 + number for n in range(200)) for number in (1, 2, 3)]
    for number, prompt in enumerate((PROMPT, *others)):
        ask(core, prompt, number + 1)
    num_cached, answer = ask(core, (*PROMPT, 7), 9)
    assert (num_cached, answer) == (200, expected_answer((*PROMPT, 7), GREEDY, N_CTX))
    assert core.fault() is None
    store.close()


def test_where_idle_cells_slow_a_step_few_stay_and_the_others_come_back_without_a_disk(tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=100)
    for number in range(4):
        ask(core, tuple(n % 60 + 1 + number for n in range(200)), number)
    assert core.num_used_cells <= 4 * 204
    ask(core, (1, 2, 3), 8)
    assert core.num_used_cells <= 7 + 100, "short ones run, so little is left of the long ones"
    num_cached, answer = ask(core, (*PROMPT, 7), 9)
    assert (num_cached, answer) == (200, expected_answer((*PROMPT, 7), GREEDY, N_CTX))
    assert core.fault() is None
    assert not list(tmp_path.iterdir()), "an agent's next turn comes before its state is worth a file"
    store.close()


class Poor(FakeBackend):
    """No memory for a copy of anything."""

    def save(self, slot: int, state_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        raise OSError(errno.ENOMEM, "no memory")


@pytest.mark.parametrize("most_idle", [None, 50])
def test_without_memory_for_a_copy_nothing_is_kept_and_nobody_fails(tmp_path: Path, most_idle: int | None) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    backend = Poor(num_slots=2, capacity=N_CTX, n_batch=64)
    backend.most_idle = most_idle
    core = open_core(store, backend)
    for number in range(4):
        prompt = tuple(n % 60 + 1 + number for n in range(200))
        assert ask(core, prompt, number) == (0, expected_answer(prompt, GREEDY, N_CTX))
        core.copy_ahead()
    core.save_cache()
    assert core.fault() is None
    assert core.cell_use.store == StoreUse()
    store.close()


def test_idle_cells_stay_where_ram_has_no_room_for_their_state_and_where_they_are_shared(tmp_path: Path) -> None:
    unlike = [PROMPT, tuple(reversed(PROMPT))]
    alike = [(*PROMPT, *PROMPT[number : number + 80]) for number in (5, 6)]
    for ram_bytes, prompts in ((0, unlike), (1 << 20, alike)):
        store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=ram_bytes)
        core = open_thin_core(store, most_idle=1)
        for number, prompt in enumerate(prompts):
            ask(core, prompt, number)
        num_used = core.num_used_cells
        ask(core, (1, 2, 3), 8)
        assert core.num_used_cells >= num_used
        assert core.cell_use.store.num_ram_states == 0
        store.close()


def test_what_ended_is_copied_before_it_must_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=1)
    ask(core, PROMPT, 1)
    core.copy_ahead()
    assert core.cell_use.store.num_ram_states == 1
    assert core.num_used_cells >= len(PROMPT), "a copy: whoever goes on with it finds it in the cells"
    with monkeypatch.context() as patched:
        patched.delattr(FakeBackend, "save")
        core.copy_ahead()
        ask(core, (1, 2, 3), 2)
    assert core.num_used_cells <= 7, "it gave way, and nothing was copied for that"
    longer = (*PROMPT, 7)
    assert ask(core, longer, 3) == (200, expected_answer(longer, GREEDY, N_CTX))
    core.copy_ahead()
    assert core.cell_use.store.num_ram_states == 1, "in place of its own beginning"
    assert core.fault() is None
    store.close()


def test_nothing_is_copied_that_can_stay_or_is_large_or_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    may_stay, short, large = open_core(store), open_thin_core(store, most_idle=1), open_thin_core(store, most_idle=1)
    may_stay.copy_ahead()
    for core, prompt in ((may_stay, PROMPT), (short, PROMPT[:20]), (large, PROMPT)):
        ask(core, prompt, 1)
    monkeypatch.setattr(kv_pool, "MOST_BYTES_AHEAD", 100)
    for core in (may_stay, short, large):
        core.copy_ahead()
        assert core.cell_use.store.num_ram_states == 0
    ask(large, (1, 2, 3), 2)
    assert large.cell_use.store.num_ram_states == 1, "once it must"
    store.close()


def test_short_ends_do_not_keep_what_they_share_among_the_idle_cells(tmp_path: Path) -> None:
    """An answer that comes back otherwise than it was said forks its conversation, turn by turn."""
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=1)
    for number in range(3):
        ask(core, (*PROMPT, *PROMPT[: 70 * number]), number)
    ask(core, (1, 2, 3), 8)
    assert core.num_used_cells <= 7 + 2 * 3
    assert core.cell_use.store.num_ram_states == 1, "what they share is there once"
    prompt = (*PROMPT, *PROMPT[:140], 7)
    assert ask(core, prompt, 9) == (340, expected_answer(prompt, GREEDY, N_CTX))
    assert core.fault() is None
    store.close()


def test_what_is_restored_keeps_no_end_that_was_not_asked_for(tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=1)
    ask(core, PROMPT, 1)
    ask(core, (1, 2, 3), 2)
    assert core.num_used_cells <= 7, "it was put away"
    otherwise = (*PROMPT[:120], 7, 7)
    assert ask(core, otherwise, 3) == (120, expected_answer(otherwise, GREEDY, N_CTX))
    assert (core.cell_use.num_used, core.cell_use.num_shared) == (6 + 125, 0), "one sequence without the old end"
    assert ask(core, (*PROMPT, 7), 4)[0] == 200, "the store has it all"
    assert core.fault() is None
    store.close()


def test_short_ends_do_not_keep_what_they_belong_to_from_being_copied_ahead(tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=1000)
    for number in range(3):
        ask(core, (*PROMPT, number, number), number)
    core.copy_ahead()
    assert core.cell_use.store.num_ram_states == 1
    many = (*PROMPT, *PROMPT[:70])
    ask(core, many, 4)
    ask(core, (*PROMPT, *PROMPT[5:75]), 5)
    core.copy_ahead()
    assert core.cell_use.store.num_ram_states == 1, "most of its cells would stay for the other"
    store.close()


class SlowDisk:
    """Files whose bytes come when `gate` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.num_reads = 0
        self.has_read = threading.Event()
        self._read_state = kv_file.read_state
        monkeypatch.setattr(kv_file, "read_state", self._read)

    def _read(self, path: Path, header: kv_file.KvHeader) -> kv_file.Bytes | None:
        self.num_reads += 1
        assert self.gate.wait(20), "the gate is opened"
        state = self._read_state(path, header)
        self.has_read.set()
        return state


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.gate.set()


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[KvStore]:
    """A store with the state of PROMPT in a file and nothing in RAM."""
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=0)
    core = open_core(store)
    ask(core, PROMPT, 1)
    core.save_cache()
    store.close()
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=0)
    yield store
    store.close()


def drained(core: EngineCore) -> list[RequestEvent]:
    """What it tells until it has nothing to do."""
    events = core.take_events()
    while core.has_work:
        events += core.step()
    return events


def cached(events: list[RequestEvent], request_id: int) -> int:
    return next(e.num_cached_tokens for e in events if isinstance(e, Started) and e.request_id == request_id)


def ended(events: list[RequestEvent], request_id: int) -> bool:
    return any(isinstance(event, Finished) and event.request_id == request_id for event in events)


def test_others_go_on_while_a_state_is_read(saved: KvStore, slow_disk: SlowDisk) -> None:
    core = open_core(saved)
    core.submit(Submit(1, Prompt((*PROMPT, 7)), GREEDY))
    core.submit(Submit(2, Prompt((*PROMPT, 8)), GREEDY))
    core.submit(Submit(3, Prompt((3, 4)), GREEDY))
    events = core.take_events()
    while not ended(events, 3):
        events += core.step()
    assert not any(event.request_id != 3 for event in events)
    slow_disk.gate.set()
    while core.has_work:
        events += core.step()
    assert (cached(events, 1), cached(events, 2), slow_disk.num_reads) == (len(PROMPT), len(PROMPT), 1)
    assert core.fault() is None


def test_an_engine_with_nothing_else_to_do_sleeps_while_a_state_is_read(saved: KvStore, slow_disk: SlowDisk) -> None:
    core = open_core(saved)
    core.submit(Submit(1, Prompt((*PROMPT, 7)), GREEDY))
    started, num_steps = time.monotonic(), 0
    while time.monotonic() < started + 0.2:
        assert core.step() == []
        num_steps += 1
    assert num_steps <= 21
    core.cancel(Cancel(1))
    assert ended(core.take_events(), 1)
    slow_disk.gate.set()
    while core.has_work:
        assert core.step() == []


def test_who_asks_again_gets_what_is_being_read_for_one_who_left(saved: KvStore, slow_disk: SlowDisk) -> None:
    core = open_core(saved)
    core.submit(Submit(1, Prompt((*PROMPT, 7)), GREEDY))
    core.cancel(Cancel(1))
    core.submit(Submit(2, Prompt((*PROMPT, 8)), GREEDY))
    events = core.take_events()
    slow_disk.gate.set()
    while core.has_work:
        events += core.step()
    assert (cached(events, 2), slow_disk.num_reads) == (len(PROMPT), 1)
    assert core.fault() is None


def test_what_is_read_for_one_who_left_is_kept(saved: KvStore, slow_disk: SlowDisk, tmp_path: Path) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_core(store)
    core.submit(Submit(1, Prompt((*PROMPT, 7)), GREEDY))
    core.cancel(Cancel(1))
    core.take_events()
    slow_disk.gate.set()
    drained(core)
    core.submit(Submit(2, Prompt((3, 4)), GREEDY))
    core.submit(Submit(3, Prompt((*PROMPT, 8)), GREEDY))
    events = drained(core)
    assert (cached(events, 2), cached(events, 3), slow_disk.num_reads) == (0, len(PROMPT), 1)
    assert core.fault() is None
    store.close()


def test_a_request_that_waits_for_room_gets_its_saved_state_then(saved: KvStore, slow_disk: SlowDisk) -> None:
    slow_disk.gate.set()
    core = open_core(saved)
    core.submit(Submit(1, Prompt((9,) * 400), GREEDY))
    core.submit(Submit(2, Prompt((*PROMPT, 7)), GREEDY))
    events = core.take_events()
    while core.has_work:
        events += core.step()
    assert (cached(events, 1), cached(events, 2)) == (0, len(PROMPT))
    assert core.fault() is None


@pytest.mark.parametrize(("num_shared", "num_cached"), [(140, 3), (160, 160)])
def test_no_long_state_is_read_for_the_little_that_is_shared(tmp_path: Path, num_shared: int, num_cached: int) -> None:
    store = KvStore(tmp_path, b"m" * 32, disk_bytes=1 << 20, ram_bytes=1 << 20)
    core = open_thin_core(store, most_idle=1)
    long = tuple(n % 60 + 1 for n in range(1200))
    ask(core, long, 1)
    ask(core, (1, 2, 3), 2)
    assert core.num_used_cells < 100
    assert ask(core, (*long[:num_shared], 61, 62), 3)[0] == num_cached, "an eighth of 1,204 is 150"
    store.close()


def test_a_request_computes_what_cannot_be_read_after_all(saved: KvStore, slow_disk: SlowDisk, tmp_path: Path) -> None:
    [path] = tmp_path.glob(f"*{kv_file.SUFFIX}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    slow_disk.gate.set()
    core = open_core(saved)
    assert ask(core, (*PROMPT, 7), 1) == (0, expected_answer((*PROMPT, 7), GREEDY, N_CTX))
    assert not path.exists()
    assert core.fault() is None


def test_a_state_that_finds_no_room_when_it_was_read_comes_once_there_is_some(
    saved: KvStore, slow_disk: SlowDisk
) -> None:
    core = open_core(saved)
    core.submit(Submit(1, Prompt((*PROMPT, 7)), GREEDY))
    core.submit(Submit(2, Prompt((9,) * 400), GREEDY))
    events = core.take_events()
    while not any(isinstance(event, Started) for event in events):
        events += core.step()
    slow_disk.gate.set()
    assert slow_disk.has_read.wait(20)
    time.sleep(0.05)
    while core.has_work:
        events += core.step()
    assert ended(events, 1)
    assert cached(events, 1) == len(PROMPT)
    assert ended(events, 2)
    assert core.fault() is None


async def test_a_restarted_engine_answers_a_known_prefix_without_computing_it(
    smollm2_path: Path, tmp_path: Path
) -> None:
    config = EngineConfig(
        smollm2_path,
        tmp_path / "engine.log",
        n_ctx=1024,
        n_batch=128,
        kv_store_dir=tmp_path / "kv",
        kv_store_bytes=1 << 30,
    )
    prompt = tuple(range(1000, 1300))
    async with running(config) as client:
        first = await collect(client, prompt, GREEDY)
    async with running(config) as client:
        again = await collect(client, prompt, GREEDY)
    started = next(event for event in again if isinstance(event, Started))
    assert started.num_cached_tokens == len(prompt)
    assert tokens_of(again) == tokens_of(first)


def test_the_logits_behind_a_restored_state_are_those_behind_a_computed_one(smollm2_path: Path, tmp_path: Path) -> None:
    config = EngineConfig(smollm2_path, tmp_path / "engine.log", n_ctx=512, n_batch=128, num_slots=2)
    library = Library(lambda line: print(line, file=sys.stderr))
    backend = LlamaBackend(library, config, on_progress=lambda _progress: True, is_cancelled=lambda _id: False)
    try:
        tokens = list(range(1000, 1100))
        backend.open(1, GREEDY, tokens)
        backend.compute([Chunk(1, 0, 0, tokens[:-1], wants_token=False)])
        state = backend.save(0, backend.state_bytes(0))
        computed = logits_after(backend, 0, tokens)
        backend.trim(0, 0)  # so that the cells are the same, and attention sums in the same order
        assert backend.restore(1, state, len(tokens) - 1)
        assert backend.num_tokens(1) == len(tokens) - 1
        np.testing.assert_allclose(logits_after(backend, 1, tokens), computed, atol=1e-3)
        assert not backend.restore(2, state[:1000], len(tokens) - 1), "half a state is none"
        assert backend.num_tokens(2) == 0
    finally:
        backend.shutdown()


def logits_after(backend: LlamaBackend, slot: int, tokens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    backend.compute([Chunk(1, slot, len(tokens) - 1, tokens[-1:], wants_token=True)])
    return cast("np.ndarray[tuple[int], np.dtype[np.float32]]", backend._context.logits(0).copy())
