"""Loading as `mm35 serve` does it: a known mistake corrected with one line, and Ctrl-C in the middle of it."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil

from bench.random_gguf import write_sparse_gguf
from mm35local.models.gguf_header import read_header
from mm35local.models.mixes import Shape
from tests.e2e.serving import free_port, serving

_YARN = "mistral3.rope.scaling.yarn_log_multiplier"
_QUESTION = "Say something."
_WIDE = Shape(2, 12288, 28672, 96, 8, 128, 131072, 262144)
_SECONDS = 20.0


def test_a_broken_yarn_key_is_corrected_with_one_line(pocket_gguf: Path, tmp_path: Path) -> None:
    right = pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf"
    broken = Path(shutil.copy(right, tmp_path / "broken.gguf"))
    with broken.open("r+b") as file:
        file.seek(read_header(broken).spans[_YARN].offset)
        file.write(struct.pack("<f", 1.0))
    damaged, answers = broken.read_bytes(), {}
    for path in (right, broken):
        log = tmp_path / f"{path.stem}.log"
        with serving("--model", str(path), "--ctx", "512", log=log) as server:
            answers[path] = server.ask(_QUESTION)
        warnings = [line for line in log.read_text().splitlines() if "WARNING" in line]
        assert [_YARN in line for line in warnings] == ([True] if path == broken else []), warnings
    assert answers[broken] == answers[right]
    assert broken.read_bytes() == damaged


def test_ctrl_c_while_it_loads(tmp_path: Path) -> None:
    """It ends at once and well, as a server does, and leaves nothing behind."""
    path = write_sparse_gguf(tmp_path / "wide.gguf", _WIDE, "Q4_K_M")
    size, modified = path.stat().st_size, path.stat().st_mtime_ns
    command = [sys.executable, "-m", "mm35local", "serve", "--model", str(path), "--ctx", "512", "--port"]
    with subprocess.Popen([*command, str(free_port())], stderr=subprocess.PIPE, text=True) as process:
        worker = _worker(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=_SECONDS)
    assert "Traceback" not in told
    assert "ready in" not in told
    assert process.returncode == 0, told
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, modified)


def _worker(pid: int) -> psutil.Process:
    """The engine's process, once it maps the model."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children():
            try:
                if any(region.path.endswith("wide.gguf") for region in child.memory_maps()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.005)
    raise AssertionError("the model is not being loaded")
