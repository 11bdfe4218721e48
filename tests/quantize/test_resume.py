"""The converter as a process that dies: SIGKILL at random moments, and a disk that fills up."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from quantize.convert import convert
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.processes import Processes

_QUANTS = ("Q4_K_M", "Q8_0")
_NUM_KILLS = 30
_JOURNAL_HEAD_BYTES = 200
"""More than the first line of a journal has."""


@pytest.fixture(scope="module")
def quick_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model with a small vocabulary, which is planned in a tenth of the time."""
    out = tmp_path_factory.mktemp("quick")
    return write_pocket(out, config=PocketConfig(num_layers=3, num_ranks=300))[0]


@pytest.fixture(scope="module")
def reference(quick_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted conversion leaves, by file name."""
    out = tmp_path_factory.mktemp("reference")
    convert(quick_checkpoint, out, _QUANTS)
    return _files(out)


def _start(processes: Processes, source: Path, out: Path) -> ForkServerProcess:
    return processes.start(convert, source, out, _QUANTS, num_threads=2)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _wait_for_journal(process: ForkServerProcess, out: Path) -> None:
    """Until it has booked a tensor more: however long a process takes to begin, some kills come after that."""
    before = _journal_bytes(out)
    while process.is_alive() and _journal_bytes(out) <= max(before, _JOURNAL_HEAD_BYTES):
        time.sleep(0.001)


def _journal_bytes(out: Path) -> int:
    try:
        return sum(path.stat().st_size for path in out.glob("*.journal"))
    except FileNotFoundError:  # done meanwhile
        return 0


def test_killed_at_thirty_random_moments(
    quick_checkpoint: Path,
    reference: dict[str, bytes],
    processes: Processes,
    tmp_path: Path,
) -> None:
    begin = time.monotonic()
    _start(processes, quick_checkpoint, tmp_path / "warm").join()
    _start(processes, quick_checkpoint, tmp_path / "whole").join()
    seconds = time.monotonic() - begin
    moments = random.Random(35)
    num_kills, num_resumed, num_whole = 0, 0, 0
    out = tmp_path / "0"
    while num_kills < _NUM_KILLS:
        num_resumed += _journal_bytes(out) > _JOURNAL_HEAD_BYTES
        process = _start(processes, quick_checkpoint, out)
        if moments.random() < 0.5:
            process.join(moments.uniform(0, seconds / 2))
        else:
            _wait_for_journal(process, out)
        if process.is_alive():
            process.kill()
            num_kills += 1
        process.join()
        assert process.exitcode in {0, -9}
        for name, data in _files(out).items() if out.exists() else ():
            assert not name.endswith(".gguf") or data == reference[name]
        if process.exitcode == 0:
            assert _files(out) == reference
            num_whole += 1
            out = tmp_path / str(num_whole)
    _start(processes, quick_checkpoint, out).join()
    assert _files(out) == reference
    assert num_resumed > _NUM_KILLS // 4


_MOUNT = 'mount -t tmpfs -o size=64m tmpfs "$1" && exec "$2" -m tests.quantize.small_disk "$3" "$1" "$4"'


def test_a_disk_of_64_mb_that_fills_up(pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, which ends with the process."""
    (tmp_path / "disk").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh"]
    command += [str(tmp_path / "disk"), sys.executable, str(pocket_checkpoint / "hf"), str(pocket_gguf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "GiB free" in told["refused"]
    assert "No space left" in told["full"]
    assert told["kept_bytes"] > 1 << 20
    assert told["first_step"] > 0.3
    assert told["is_same"]
