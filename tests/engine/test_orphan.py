"""A worker never outlives its parent, however that ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

PARENT = """
import asyncio, sys
from pathlib import Path
from mm35local.engine.api import EngineConfig, EngineState
from mm35local.engine.client import EngineClient
from mm35local.types import Prompt, SamplingParams

async def main() -> None:
    client = EngineClient(EngineConfig(Path(sys.argv[1]), Path(sys.argv[2]), n_ctx=4096, n_batch=2048))
    await client.start()
    while client.status.state is EngineState.LOADING:
        await asyncio.sleep(0.01)
    print(client.worker_pid, flush=True)
    async for event in client.generate(Prompt(tuple(range(1000, 3000))), SamplingParams()):
        if len(sys.argv) > 3:
            raise SystemExit(7)

asyncio.run(main())
"""


def test_a_worker_ends_when_its_parent_is_killed_even_in_the_middle_of_a_step(
    smollm2_path: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PARENT, str(smollm2_path), str(tmp_path / "engine.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        assert worker.is_running()
        parent.kill()
    gone, _alive = psutil.wait_procs([worker], timeout=3)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE, "init has yet to reap it"


def test_a_parent_that_ends_by_an_error_waits_for_no_worker(smollm2_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(smollm2_path), str(tmp_path / "engine.log"), "fail"]
    parent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert parent.returncode == 7
    assert not psutil.pid_exists(int(parent.stdout))
