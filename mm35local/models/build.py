"""What the installed llama.cpp was built for, asked of it in a process of its own, which a broken CUDA may end."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mm35local.models.gpus import backend_library

_ASK = "from mm35local.native.library import version; print(version())"
_ARCHITECTURES = re.compile(r"ARCHS = ([\d,]+)")
_SECONDS = 30


@dataclass(frozen=True, slots=True)
class CudaBuild:
    architectures: tuple[str, ...]
    """Compute capabilities such as 9.0; empty where llama.cpp could not tell, so the library did not load."""
    has_nccl: bool


def cuda_build() -> CudaBuild | None:
    """None: it was built without CUDA."""
    library = backend_library("ggml-cuda")
    return CudaBuild(architectures(_told()), links_nccl(library)) if library else None


def architectures(system_info: str) -> tuple[str, ...]:
    """From llama.cpp's own words: 750,900 are 7.5 and 9.0."""
    found = _ARCHITECTURES.search(system_info)
    return tuple(f"{number[:-2]}.{number[-2]}" for number in found[1].split(",")) if found else ()


def has_llamafile() -> bool:
    """Do products of several rows on the CPU add up in another order than that of one?"""
    return "LLAMAFILE = 1" in _told()


def links_nccl(library: Path) -> bool:
    """Does the library name libnccl among those that it needs?"""
    return b"libnccl.so" in library.read_bytes()


def _told() -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout
