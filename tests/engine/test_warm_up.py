from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mm35local.cli.prepare import wish_of
from mm35local.engine.api import EngineConfig, EngineState
from mm35local.engine.client import EngineClient
from mm35local.engine.measured import compare
from mm35local.engine.warm_up import warm_up
from mm35local.models.geometry import from_header
from mm35local.models.gguf_header import read_header
from mm35local.models.gpus import Machine
from mm35local.models.plan import make_plan
from mm35local.settings import Settings
from tests.fakes.backend import FakeBackend


@pytest.mark.parametrize(("n_ctx", "is_on_gpu", "sizes"), [(64, True, [8, 1]), (4, True, [4, 1]), (64, False, [1])])
def test_its_steps_are_as_large_as_any_and_leave_nothing(n_ctx: int, is_on_gpu: bool, sizes: list[int]) -> None:
    backend = FakeBackend(num_slots=2, capacity=n_ctx, n_batch=8)
    warm_up(backend, n_ctx=n_ctx, n_batch=8, is_on_gpu=is_on_gpu)
    assert [sum(chunk.num_rows for chunk in step) for step in backend.steps] == sizes
    assert not any(backend.cells)
    assert not backend.opened


async def test_the_engine_tells_planned_and_allocated_bytes(smollm2_path: Path, tmp_path: Path) -> None:
    plan = make_plan(from_header(read_header(smollm2_path)), Machine((), 8 << 30), wish_of(Settings(ctx=512)))
    config = EngineConfig(
        smollm2_path,
        tmp_path / "engine.log",
        plan.n_ctx,
        num_threads=1,
        n_batch=plan.n_batch,
        planned=plan.buffer_bytes,
    )
    engine = EngineClient(config)
    await engine.start()
    try:
        async with asyncio.timeout(60):
            while engine.status.state is EngineState.LOADING:
                await asyncio.sleep(0.05)
        info = engine.status.info
        assert info is not None, engine.status.error
        measured = compare(info.planned, info.buffers)
        assert [each.kind for each in measured] == ["model", "KV", "compute"]
        assert not any(each.is_off for each in measured), measured
    finally:
        await engine.aclose()
    log = (tmp_path / "engine.log").read_text()
    assert "memory: KV buffers take" in log
    assert "WARNING: memory" not in log
