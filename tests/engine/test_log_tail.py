"""What a dead worker's log gives away."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mm35local.engine.log_tail import death_reason, log_size


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
