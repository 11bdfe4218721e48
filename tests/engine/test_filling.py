"""A step is filled where that is quicker, as far as measured steps tell, and nobody notices but by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine.api import EngineConfig, Submit
from mm35local.engine.backend import Chunk
from mm35local.engine.core import EngineCore
from mm35local.engine.filling import BLOCK, Filling, Load, attention_block
from mm35local.engine.kv_pool import KvPool
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.engine.pace import Pace
from mm35local.engine.prefix_cache import Hit
from mm35local.engine.speculation import Speculator
from mm35local.engine.timed_steps import TimedSteps
from mm35local.native.library import Library
from mm35local.types import Prompt, SamplingParams
from tests.fakes.backend import FakeBackend

CONFIG = EngineConfig(Path("model.gguf"), Path("log"), 8192, num_slots=4)
seconds_strategy = st.floats(1e-6, 1e-2)


class Machine:
    """Steps take (base, a row, a row's cell, a block's cell) seconds."""

    def __init__(self, base: float, row: float, row_cell: float, block_cell: float) -> None:
        self.costs = base, row, row_cell, block_cell

    def seconds(self, load: Load, fill_to: int) -> float:
        base, row, row_cell, block_cell = self.costs
        num_rows = max(load.num_rows, fill_to)
        if num_rows < BLOCK:
            return base + row * num_rows + row_cell * load.num_row_cells
        return base + row * num_rows + block_cell * -(-num_rows // BLOCK) * load.num_cells

    def converse(self, filling: Filling, *, num_turns: int = 6) -> int:
        """Turns of a prompt and an answer, measured; returns how deep it got."""
        depth = 0
        for num_new in ([150, 45, 80, 20] * num_turns)[:num_turns]:
            self.step(filling, one(depth, num_new))
            depth += num_new
            for _ in range(20):
                self.step(filling, one(depth, 1))
                depth += 1
        return depth

    def step(self, filling: Filling, load: Load) -> int:
        fill_to = filling.fill_to(load)
        filling.observe(load, fill_to, self.seconds(load, fill_to))
        return fill_to


def one(depth: int, num_rows: int) -> Load:
    """Rows of one conversation."""
    return Load(num_rows, num_rows * (2 * depth + num_rows + 1) // 2, depth + num_rows)


XEON = Machine(7e-3, 6e-4, 1.4e-5, 1.1e-4)
"""About SmolLM2-135M on two cores."""


def test_few_rows_of_a_long_conversation_are_filled_and_one_never_is() -> None:
    filling = Filling(BLOCK)
    depth = XEON.converse(filling)
    assert [filling.fill_to(one(depth, n)) for n in (1, 2, 4, 16, 32, 63, 64, 100)] == [0, 0, 0, 64, 64, 64, 0, 0]
    assert [filling.fill_to(one(0, n)) for n in (2, 8, 16)] == [0, 0, 0]


def test_streams_are_filled_where_they_share_what_they_look_at() -> None:
    filling = Filling(BLOCK)
    XEON.converse(filling)
    assert filling.fill_to(Load(16, 16 * 1200, 1000 + 16 * 200)) == 0
    assert filling.fill_to(Load(16, 16 * 1200, 1100 + 16 * 10)) == BLOCK


def test_nothing_is_filled_before_anything_was_measured() -> None:
    assert Filling(BLOCK).fill_to(one(4000, 60)) == 0


def test_a_large_model_is_not_filled_for_its_products_are_dear() -> None:
    filling = Filling(BLOCK)
    large = Machine(0.25, 0.13, 1.5e-6, 1.2e-5)
    depth = large.converse(filling)
    assert [filling.fill_to(one(depth, n)) for n in (2, 8, 32, 56)] == [0, 0, 0, 0]


def test_a_trial_that_took_longer_is_not_repeated_for_long() -> None:
    filling = Filling(BLOCK)
    no_gain = Machine(7e-3, 6e-4, 1e-6, 1e-4)  # blocks bring nothing
    for _ in range(20):
        no_gain.step(filling, one(500, 8))
        no_gain.step(filling, one(2000, 8))
    assert sum(no_gain.step(filling, one(1900 + i, 8)) > 0 for i in range(100)) <= 5


def test_what_was_never_measured_takes_some_time_all_the_same() -> None:
    """Where rows before the first block cost what their cells do, a block without any would cost nothing."""
    filling = Filling(BLOCK)
    assert filling.seconds(one(0, 1), BLOCK) > 0
    for depth in (10, 100, 1000, 10, 100, 1000):
        filling.observe(one(depth, 1), 0, 1e-6 * depth)
    assert filling.seconds(one(100, 1), BLOCK) > 0


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 5000), st.booleans(), st.floats(0, 10)), min_size=1))
def test_whatever_was_measured_everything_takes_some_time(steps: list[tuple[int, int, bool, float]]) -> None:
    filling = Filling(BLOCK)
    for num_rows, depth, is_filled, seconds in steps:
        filling.observe(one(depth, num_rows), BLOCK * is_filled, seconds)
    found = [filling.seconds(one(depth, n), fill_to) for depth in (0, 900) for n in (1, 70) for fill_to in (0, BLOCK)]
    assert min(found) > 0
    assert filling.knows_blocks == any(max(n, BLOCK * is_filled) >= BLOCK for n, _, is_filled, _ in steps)


def test_guesses_know_of_no_block_before_one_was_measured() -> None:
    backend = FakeBackend(num_slots=2, capacity=400, n_batch=BLOCK, block=BLOCK)
    pool, speculator = KvPool(backend, n_ctx=400), Speculator(())
    steps = TimedSteps(backend, pool, Pace(), speculator, count(0.0, 0.5).__next__)
    slot, _ = pool.take(Hit(None, 0))
    backend.open(1, SamplingParams(), (1, 2))
    chunk = Chunk(1, slot, 0, (5,), wants_token=False)
    steps.compute([chunk])
    assert steps.filled([chunk]) is None
    steps.compute([Chunk(1, slot, 1, (6,) * BLOCK, wants_token=False)])
    known = steps.filled([chunk])
    assert known is not None
    assert known.seconds > 0
    assert steps.filled([Chunk(1, slot, 1, (), wants_token=True)]) is None, "it takes no step"


def test_guesses_know_what_a_row_takes_that_is_computed_alone() -> None:
    backend = FakeBackend(num_slots=2, capacity=4000, n_batch=1000, block=BLOCK)
    machine, pool, now = XEON, KvPool(backend, n_ctx=4000), [0.0, 0.0]
    steps = TimedSteps(backend, pool, Pace(), Speculator(()), lambda: now.pop())
    slot, _ = pool.take(Hit(None, 0))
    backend.open(1, SamplingParams(), (1, 2))
    for start, num_rows in ((0, 900), *((900 + n, 1) for n in range(40)), (940, 6), (946, 64)):
        chunk = Chunk(1, slot, start, (5,) * num_rows, wants_token=False)
        load = Load(num_rows, num_rows * start + num_rows * (num_rows + 1) // 2, start + num_rows)
        now[:] = [machine.seconds(load, 0), 0.0]
        steps.compute([chunk])
        pool.append(slot, chunk.token_ids)
    known = steps.filled([Chunk(1, slot, 1010, (5,), wants_token=True)])
    assert known is not None
    more = machine.seconds(Load(2, 2 * 1011, 1012), 0) - machine.seconds(Load(1, 1011, 1011), 0)
    assert known.row_seconds == pytest.approx(more, rel=0.3)


def test_what_blocks_take_is_told_once_one_was_measured() -> None:
    filling = Filling(BLOCK)
    XEON.step(filling, one(100, 1))
    assert filling.block_seconds(1000, 256) == []
    XEON.converse(filling)
    expected = [XEON.seconds(Load(n * BLOCK, 0, 1000 + n * BLOCK), 0) for n in (1, 2, 3)]
    assert filling.block_seconds(1000, 4 * BLOCK - 1) == pytest.approx(expected, rel=0.05)


@settings(max_examples=200)
@given(seconds_strategy, seconds_strategy, seconds_strategy, seconds_strategy, st.integers(2, 63))
def test_what_was_measured_at_all_sizes_tells_what_is_quicker(
    base: float, row: float, row_cell: float, block_cell: float, num_rows: int
) -> None:
    machine, filling = Machine(base, row, row_cell / 100, block_cell / 10), Filling(BLOCK)
    depth = machine.converse(filling, num_turns=8)
    for fill_to in (0, BLOCK):
        for n in (2, 8, 32, 60, 63):
            for at in (depth // 4, depth):
                filling.observe(one(at, n), fill_to, machine.seconds(one(at, n), fill_to))
    load = one(depth, num_rows)
    plain, filled = machine.seconds(load, 0), machine.seconds(load, BLOCK)
    if max(plain, filled) > 1.5 * min(plain, filled):
        assert filling.fill_to(load) == (BLOCK if filled < plain else 0)


def test_it_depends_on_what_computes_attention() -> None:
    assert attention_block(CONFIG) == BLOCK
    others = ({"flash_attention": False}, {"n_gpu_layers": 99}, {"kv_type": "q8_0"}, {"n_batch": BLOCK - 1})
    assert [attention_block(replace(CONFIG, **other)) for other in others] == [None] * len(others)


class Timed(FakeBackend):
    """A whole block takes a second, and so does each row's cell in a smaller step."""

    now = 0.0

    def compute(self, chunks: Sequence[Chunk], *, fill_to: int = 0) -> list[tuple[int, ...]]:
        assert self.block is not None
        num_rows = sum(chunk.num_rows for chunk in chunks)
        is_whole = max(num_rows, fill_to) >= self.block
        self.now += 1.0 if is_whole else float(sum(chunk.num_rows * (chunk.start + 1) for chunk in chunks))
        return super().compute(chunks, fill_to=fill_to)


@pytest.mark.parametrize(("capacity", "is_filled"), [(200, True), (15, False)])
def test_the_core_fills_where_it_is_quicker_and_cells_are_free(capacity: int, is_filled: bool) -> None:
    backend = Timed(num_slots=4, capacity=capacity, n_batch=16, block=16)
    core = EngineCore(backend, n_ctx=capacity, num_slots=4, n_batch=16, max_waiting=4, clock=lambda: backend.now)
    for number in range(1, 5):
        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
        core.submit(Submit(number, Prompt((number,) * 3), params))
    while core.has_work:
        core.step()
    assert any(backend.fills) is is_filled
    assert core.fault() is None


def test_fillers_leave_nothing_behind_and_change_nothing(library: Library, smollm2_path: Path, tmp_path: Path) -> None:
    config = EngineConfig(smollm2_path, tmp_path / "log", n_ctx=512, num_slots=2, n_batch=128)
    backend = LlamaBackend(library, config, on_progress=lambda done: True, is_cancelled=lambda request_id: False)
    try:
        prompt = backend.tokenize(["The capital of France is Paris, and the capital of Italy is Rome. " * 5])
        found = []
        for fill_to in (0, BLOCK):
            backend.open(1, SamplingParams(temperature=0, num_logprobs=5), prompt)
            first, rest = prompt[:-9], prompt[-9:]
            backend.compute([Chunk(1, 0, 0, first, wants_token=False)])
            sampled = backend.compute([Chunk(1, 0, len(first), rest, wants_token=True)], fill_to=fill_to)
            found.append((sampled, backend.take_logprobs(1)[0].logprob))
            assert backend.num_tokens(0) == len(prompt)
            assert [backend.num_tokens(slot) for slot in range(1, backend.num_sequences + 1)] == [0] * (
                backend.num_sequences
            )
            backend.close(1)
            backend.trim(0, 0)
    finally:
        backend.shutdown()
    (plain, plain_logprob), (filled, filled_logprob) = found
    assert filled == plain
    assert np.isclose(filled_logprob, plain_logprob, atol=0.3)
