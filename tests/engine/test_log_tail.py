"""What a dead worker's log gives away."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import sys
from pathlib import Path

import pytest

from mm35local.engine.log_tail import death_reason, log_size, print_survived
from mm35local.engine.process import WorkerProcess
from mm35local.errors import DecodeFailed


@pytest.mark.parametrize(
    ("written", "exit_code", "reason"),
    [
        ("loading\nggml.c:12: GGML_ASSERT(a == b) failed\nbacktrace\n", -6, "ggml.c:12: GGML_ASSERT(a == b) failed"),
        ("  File x, line 3\nValueError: five\n", 1, "ValueError: five"),
        ("just loading\n", -signal.SIGKILL, "SIGKILL, often sent when memory runs out"),
        ("just loading\n", -signal.SIGSEGV, "SIGSEGV"),
        ("just loading\n", 3, ""),
        ("", None, ""),
        ("", -1000, ""),
    ],
)
def test_the_reason_comes_from_the_log_else_from_the_signal(
    tmp_path: Path, written: str, exit_code: int | None, reason: str
) -> None:
    log = tmp_path / "engine.log"
    log.write_text("GGML_ASSERT of an earlier life\n")
    offset = log_size(log)
    with log.open("a") as file:
        file.write(written)
    assert death_reason(log, offset, exit_code) == reason


def test_no_log_is_no_reason(tmp_path: Path) -> None:
    assert log_size(tmp_path / "none") == 0
    assert death_reason(tmp_path / "none", 0, 1) == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("five"),
        RuntimeError("CUDA error: out of memory\nggml.c:12: GGML_ASSERT(a == b) failed\n\nMemoryError"),
        DecodeFailed(-3),
        ExceptionGroup("both", [OSError("out of memory"), ValueError("five")]),
    ],
)
def test_an_error_that_was_survived_is_no_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    print_survived(error)
    written = capsys.readouterr().err
    assert type(error).__name__ in written
    log = tmp_path / "engine.log"
    log.write_text(written)
    assert death_reason(log, 0, 1) == ""
    log.write_text(written + "ggml.c:34: GGML_ASSERT(c) failed\n")
    assert death_reason(log, 0, 1) == "ggml.c:34: GGML_ASSERT(c) failed"


@pytest.mark.parametrize("has_loaded", [False, True])
async def test_what_was_logged_while_it_loaded_is_no_reason_later(tmp_path: Path, has_loaded: bool) -> None:
    log = tmp_path / "engine.log"
    log.write_text("CUDA error: out of memory\n")
    process = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(3,))
    process.start()
    worker = WorkerProcess(process, lambda events: None, log, 0)
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)
    theirs.close()
    if has_loaded:
        worker.read_log_from_here()
    assert await worker.end() == (3, "" if has_loaded else "CUDA error: out of memory")
