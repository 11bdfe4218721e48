"""May weights go into ggml's extra buffers, which only some kernels can read? A child process tries once a build.

GCC 12 drops stores of ggml's tile configuration for Intel's AMX, and the first tile instruction ends the process; a
virtual machine may show features it does not carry; and a build does not tell its compiler. So somebody must try.

Invariant: a verdict is kept only where the child came to one. What could not be tried is tried again, and until then
the answer is no, which costs speed and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mm35local import paths

_SECONDS = 60.0
"""On an idle machine it takes half of one."""
COMPILER_FLAGS = "-fno-tree-dse -fno-dse"
"""What GCC 12 needs to compile ggml's AMX kernels rightly."""
_RIGHT, _WRONG = 0, 3
"""Exit codes of `native.products`."""


@cache
def use_extra_buffers() -> bool:
    """The verdict for this process; the log tells of a bad one."""
    verdict = extra_buffers_work(paths.cpu_kernels_file())
    if not verdict:
        print(
            "kernels for repacked weights (AMX) fail here; weights stay as they are. See mm35 doctor", file=sys.stderr
        )
    return verdict


def extra_buffers_work(verdict_file: Path) -> bool:
    """Do all kernels that read extra buffers give right products here? Kept in `verdict_file`."""
    mark = _mark()
    kept = _read(verdict_file, mark)
    if kept is not None:
        return kept
    verdict = _try_in_child()
    if verdict is not None:
        _write(verdict_file, mark, verdict)
    return verdict is True


def _try_in_child() -> bool | None:
    """None where the child could not start, or failed otherwise than by a kernel."""
    command = [sys.executable, "-P", "-m", "mm35local.native.products"]
    try:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return None
    return code == _RIGHT if code <= 0 or code == _WRONG else None


def _mark() -> str:
    """A digest that changes with ggml's CPU library, the CPU's features, and the kernel that must save their state."""
    digest = hashlib.sha256(f"{platform.release()} {_cpu_features()}".encode())
    spec = find_spec("llama_cpp")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for library in sorted(Path(folder, "lib").glob("*ggml-cpu*")):
            digest.update(library.read_bytes())
    return digest.hexdigest()


def _cpu_features() -> str:
    """The line of the first CPU on Linux, a name elsewhere."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()


def _read(path: Path, mark: str) -> bool | None:
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    verdict = kept.get(mark) if isinstance(kept, dict) else None
    return verdict if isinstance(verdict, bool) else None


def _write(path: Path, mark: str, verdict: bool) -> None:
    """Only the last verdict is kept. Where the folder cannot be written, the next process tries again."""
    part = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({mark: verdict}))
        part.replace(path)
