"""Whether repacked weights may be used is tried once, kept for this build and CPU, and never believed without a try."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mm35local.engine import cpu_kernels
from mm35local.engine.cpu_kernels import extra_buffers_work


class Child:
    """Runs the command given instead of the real child, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        self.num_runs = 0
        self._run = subprocess.run
        self._code = code
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **options: object) -> object:
        self.num_runs += 1
        return self._run([sys.executable, "-c", self._code], **options)  # type: ignore[call-overload]


@pytest.fixture
def verdict_file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "verdict.json"


@pytest.mark.parametrize(
    ("code", "works", "is_kept"),
    [
        ("", True, True),
        ("raise SystemExit(3)", False, True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", False, True),
        ("import no_such_library", False, False),
    ],
)
def test_what_the_child_came_to_is_kept(
    monkeypatch: pytest.MonkeyPatch, verdict_file: Path, code: str, works: bool, is_kept: bool
) -> None:
    child = Child(monkeypatch, code)
    assert [extra_buffers_work(verdict_file) for _ in range(2)] == [works, works]
    assert child.num_runs == (1 if is_kept else 2)


def test_another_build_or_cpu_is_tried_again(monkeypatch: pytest.MonkeyPatch, verdict_file: Path) -> None:
    child = Child(monkeypatch, "")
    assert extra_buffers_work(verdict_file)
    monkeypatch.setattr(cpu_kernels, "_cpu_features", lambda: "flags: another CPU")
    assert extra_buffers_work(verdict_file)
    assert child.num_runs == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"null"])
def test_a_damaged_verdict_is_no_verdict(monkeypatch: pytest.MonkeyPatch, verdict_file: Path, content: bytes) -> None:
    verdict_file.parent.mkdir()
    verdict_file.write_bytes(content)
    child = Child(monkeypatch, "raise SystemExit(3)")
    assert not extra_buffers_work(verdict_file)
    assert child.num_runs == 1


def test_a_folder_that_cannot_be_written_costs_a_try_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    child = Child(monkeypatch, "")
    assert [extra_buffers_work(tmp_path / "file" / "verdict.json") for _ in range(2)] == [True, True]
    assert child.num_runs == 2


def test_this_machines_own_verdict_is_what_a_prompt_shows(verdict_file: Path, smollm2_path: Path) -> None:
    """The tried products decide as a real prompt of several rows would: it ends its process, or it does not."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from pathlib import Path
from mm35local.native.batch import Batch
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing
library = Library(lambda line: None)
model = Model(library, Path({str(smollm2_path)!r}), Placing(use_extra_buffers=True))
context = Context(library, model, n_ctx=256, num_sequences=1, n_batch=64, num_threads=1, num_batch_threads=1)
batch = Batch(64)
batch.add(0, 0, list(range(64)), wants_logits=True)
raise SystemExit(context.decode(batch))
"""
    prompt = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert prompt.returncode in (0, -11, -4), prompt.stderr.decode()
    assert extra_buffers_work(verdict_file) == (prompt.returncode == 0)
