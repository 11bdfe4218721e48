"""`mm35 quantize` that is ended while it converts: by Ctrl-C, and by SIGKILL while it consumes its source."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.serving import mm35
from tests.fakes.hub import REVISION, fake_hub
from tests.pocket import PocketConfig, write_pocket

_CONFIG = PocketConfig(num_layers=3, n_embd=512, n_ff=2048, n_head=8, head_dim=64, num_ranks=300, num_hf_shards=3)
_WISHES = ("--to", "IQ4_XS", "--to", "Q8_0", "--mmproj", "f16", "--threads", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that a conversion takes seconds."""
    return write_pocket(tmp_path_factory.mktemp("slow"), config=_CONFIG)[0]


@pytest.fixture(scope="module")
def reference(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("reference")
    done = mm35("quantize", str(checkpoint), *_WISHES, "-o", str(out))
    assert done.returncode == 0, done.stderr
    return _files(out)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _end_when(
    is_time: Callable[[], bool], signum: signal.Signals, *arguments: str, env: dict[str, str] | None = None
) -> tuple[int, list[str]]:
    """(exit code, lines of stderr) of a command that gets a signal while it runs."""
    command = [sys.executable, "-m", "mm35local", "quantize", *arguments]
    environment = {**os.environ, **(env or {})}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and not is_time() and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signum)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, told.splitlines()


def _num_booked(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") - 1 for path in out.glob("*IQ4_XS.journal"))


def test_ctrl_c_tells_what_is_safe_and_the_command_goes_on(
    checkpoint: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    arguments = (str(checkpoint), *_WISHES, "-o", str(tmp_path))
    code, lines = _end_when(lambda: _num_booked(tmp_path) >= 5, signal.SIGINT, *arguments)
    assert (code, len(lines)) == (130, 2)
    assert lines[0].startswith("interrupted: safe in ")
    assert "-IQ4_XS, " in lines[0]
    assert "0 bytes of" not in lines[0]
    assert "same command goes on" in lines[1]
    assert not list(tmp_path.glob("*IQ4_XS.gguf"))
    assert mm35("quantize", *arguments).returncode == 0
    assert _files(tmp_path) == reference


@pytest.mark.parametrize("num_left", [2, 1])
def test_killed_while_it_consumes(checkpoint: Path, reference: dict[str, bytes], tmp_path: Path, num_left: int) -> None:
    source, out = Path(shutil.copytree(checkpoint, tmp_path / "source")), tmp_path / "out"
    arguments = (str(source), *_WISHES, "-o", str(out), "--consume")
    code, _ = _end_when(lambda: len(list(source.glob("*.safetensors"))) <= num_left, signal.SIGKILL, *arguments)
    assert code == -9
    assert not list(out.glob("*.gguf"))
    done = mm35("quantize", *arguments)
    assert done.returncode == 0, done.stderr
    assert _files(out) == reference
    assert not list(source.glob("*.safetensors"))


def test_killed_while_it_consumes_a_repository_of_the_hub(checkpoint: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    snapshot = cache / "models--me--slow" / "snapshots" / REVISION
    names = [path.name for path in checkpoint.glob("*.safetensors")]
    with fake_hub({"me/slow": {path.name: path for path in checkpoint.iterdir()}}) as hub:
        arguments, env = ("me/slow", *_WISHES, "--consume"), {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache)}

        def consumed() -> list[str]:
            heads = (path for path in snapshot.glob("*.head") if '"is_consumed": true' in path.read_text())
            return [name for path in heads if not (snapshot / (name := path.stem)).exists()]

        code, _ = _end_when(lambda: bool(consumed()), signal.SIGKILL, *arguments, "-o", str(out), env=env)
        gone = consumed()
        assert (code, len(gone)) == (-9, 1)
        done = mm35("quantize", *arguments, "-o", str(out), env=env)
        assert done.returncode == 0, done.stderr
        assert hub.asked.count(gone[0]) == 1
        assert mm35("quantize", "me/slow", *_WISHES, "-o", str(tmp_path / "kept"), env=env).returncode == 0
    assert _files(out) == _files(tmp_path / "kept")
    assert sorted(path.name for path in snapshot.glob("*.safetensors")) == sorted(names)


def test_a_consumed_source_is_proven_and_planned(checkpoint: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(checkpoint, tmp_path / "source")), tmp_path / "out"
    arguments = ("quantize", str(source), *_WISHES, "-o", str(out))
    plan = mm35(*arguments, "--plan")
    assert "disk with --consume" in plan.stdout
    done = mm35(*arguments, "--consume", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("hashes hold") == 3
    assert "unknown" not in done.stderr
    assert {name: data for name, data in _files(out).items() if "report" not in name} == reference
    again = mm35(*arguments, "--verify")
    assert again.returncode == 0, again.stderr
    assert again.stderr == done.stderr
