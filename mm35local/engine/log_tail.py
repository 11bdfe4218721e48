"""Why a worker died, from the end of its log: ggml says why it aborts on stderr, and nowhere else."""

from __future__ import annotations

import re
import signal
import sys
import textwrap
import traceback
from pathlib import Path

_MAX_BYTES = 64 * 1024
_REASON = re.compile(
    r"GGML_ASSERT|GGML_ABORT|ggml_abort|^\S+\.(?:c|cpp|cu|cuh):\d+: |CUDA error|out of memory"
    r"|^[\w.]*(Error|Exception)\b|mm35local\.errors\.\w+: |^Fatal Python"
)

_SURVIVED = "survived: "


def log_size(path: Path) -> int:
    """Bytes written so far; 0 while there is no log."""
    return path.stat().st_size if path.exists() else 0


def death_reason(path: Path, offset: int, exit_code: int | None) -> str:
    """One line, from what was logged after `offset`, else from the signal; "" when nothing is known."""
    for line in _lines(path, offset):
        if _REASON.search(line) and not line.startswith(_SURVIVED):
            return line.strip()
    if exit_code is None or exit_code >= 0:
        return ""
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        return ""
    return "SIGKILL, often sent when memory runs out" if name == "SIGKILL" else name


def print_survived(error: Exception) -> None:
    """Log an error that the process outlives, so that `death_reason` does not take it for why that ended later."""
    lines = "".join(traceback.format_exception(error))
    print(textwrap.indent(lines, _SURVIVED), end="", file=sys.stderr, flush=True)


def _lines(path: Path, offset: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(offset, log_size(path) - _MAX_BYTES))
            return file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
