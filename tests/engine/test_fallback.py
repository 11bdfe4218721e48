"""A context that memory cannot hold is answered with the next smaller plan, and said."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from mm35local.engine.api import EngineConfig, EngineState
from mm35local.engine.client import EngineClient
from mm35local.engine.fallback import after_death
from mm35local.errors import WorkerDied

KV_BYTES_PER_TOKEN = 23040


async def test_too_much_context_falls_back(smollm2_path: Path, tmp_path: Path) -> None:
    log_path = tmp_path / "engine.log"
    smaller = EngineConfig(smollm2_path, log_path, n_ctx=512, num_slots=1, num_threads=1)
    n_ctx = 4 * psutil.virtual_memory().total // KV_BYTES_PER_TOKEN
    far_too_much = EngineConfig(smollm2_path, log_path, n_ctx=n_ctx, num_slots=1, num_threads=1, fallbacks=(smaller,))
    engine = EngineClient(far_too_much)
    await engine.start()
    try:
        async with asyncio.timeout(60):
            while engine.status.state is EngineState.LOADING:
                await asyncio.sleep(0.05)
        info = engine.status.info
        assert info is not None, engine.status.error
        assert info.n_ctx == 512
        assert info.changed == f"n_ctx 512 instead of {n_ctx}"
        assert {kind for _, kind, _ in info.buffers} == {"model", "KV", "compute", "output"}
    finally:
        await engine.aclose()
    assert "trying with n_ctx 512" in log_path.read_text()


async def test_a_worker_killed_while_it_loads_falls_back(smollm2_path: Path, tmp_path: Path) -> None:
    """As Linux does it to the process that takes the last of the RAM."""
    log_path = tmp_path / "engine.log"
    smaller = EngineConfig(smollm2_path, log_path, n_ctx=512, num_slots=1, num_threads=1)
    engine = EngineClient(EngineConfig(smollm2_path, log_path, n_ctx=4096, num_threads=1, fallbacks=(smaller,)))
    await engine.start()
    try:
        async with asyncio.timeout(60):
            while engine.worker_pid is None:
                await asyncio.sleep(0.001)
            os.kill(engine.worker_pid, signal.SIGKILL)
            while engine.status.state is EngineState.LOADING:
                await asyncio.sleep(0.02)
        info = engine.status.info
        assert info is not None, engine.status.error
        assert (info.n_ctx, info.changed) == (512, "n_ctx 512 instead of 4096")
        assert engine.status.num_restarts == 0
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("exit_code", "reason", "is_memory"),
    [
        (-signal.SIGKILL, "SIGKILL, often sent when memory runs out", True),
        (-signal.SIGABRT, "CUDA error: out of memory", True),
        (-signal.SIGABRT, "ggml.c:12: GGML_ASSERT(a) failed", False),
        (1, "ModuleNotFoundError: llama_cpp", False),
    ],
)
def test_only_short_memory_asks_for_less(exit_code: int, reason: str, is_memory: bool) -> None:
    last = EngineConfig(Path("m"), Path("l"), 256)
    config = EngineConfig(Path("m"), Path("l"), 1024, fallbacks=(EngineConfig(Path("m"), Path("l"), 512), last))
    smaller = after_death(config, WorkerDied(exit_code, reason))
    assert (smaller is not None) == is_memory
    if smaller is not None:
        assert (smaller.n_ctx, smaller.fallbacks) == (512, (last,))
        assert after_death(last, WorkerDied(exit_code, reason)) is None
