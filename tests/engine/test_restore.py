"""Sequences that come back from disk: as if they had been computed, by the fake and by llama.cpp."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import numpy as np

from mm35local.engine.api import EngineConfig, Finished, Started, Submit
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
    assert started.num_cached_tokens == len(prompt) - 1
    assert tokens_of(again) == tokens_of(first)


def test_the_logits_behind_a_restored_state_are_those_behind_a_computed_one(smollm2_path: Path, tmp_path: Path) -> None:
    config = EngineConfig(smollm2_path, tmp_path / "engine.log", n_ctx=512, n_batch=128, num_slots=2)
    library = Library(lambda line: print(line, file=sys.stderr))
    backend = LlamaBackend(library, config, on_progress=lambda _progress: True, is_cancelled=lambda _id: False)
    try:
        tokens = list(range(1000, 1100))
        backend.open(1, GREEDY, tokens)
        backend.compute([Chunk(1, 0, 0, tokens[:-1], wants_token=False)])
        state = backend.save(0)
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
