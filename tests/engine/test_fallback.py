"""A context that memory cannot hold is answered with the next smaller plan, and said."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from mm35local.engine.api import EngineConfig, EngineState
from mm35local.engine.client import EngineClient

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
