"""`python -m tests.quantize.small_disk SOURCE DISK REFERENCE`: converts onto a small file system that fills up.

Prints as JSON what happened; runs in a process of its own because the file system is mounted for it alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mm35local.errors import ConversionError
from quantize.convert import convert

_QUANTS = ("Q4_K_M", "Q5_K_M", "Q8_0")
_MIB = 1 << 20


def _fill(ballast: Path, keep_bytes: int) -> None:
    """Take all but `keep_bytes` of the disk."""
    disk = os.statvfs(ballast.parent)
    with ballast.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, ballast.stat().st_size + disk.f_bavail * disk.f_bsize - keep_bytes)


def main(source: Path, disk: Path, reference: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    out, ballast = disk / "out", disk / "ballast"
    _fill(ballast, 8 * _MIB)
    try:
        convert(source, out, _QUANTS)
    except ConversionError as error:
        told["refused"] = str(error)
    ballast.unlink()

    def fill_at_half(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes // 2 and not ballast.exists():
            _fill(ballast, 0)

    try:
        convert(source, out, _QUANTS, num_threads=1, on_progress=fill_at_half)
    except ConversionError as error:
        told["full"] = str(error)
    told["kept_bytes"] = sum(path.stat().st_blocks * 512 for path in out.glob("*.partial"))
    ballast.unlink()

    steps: list[float] = []
    convert(source, out, _QUANTS, on_progress=lambda done, total: steps.append(done / total))
    told["first_step"] = steps[0]
    names = sorted(path.name for path in reference.iterdir())
    told["is_same"] = names == sorted(path.name for path in out.iterdir()) and all(
        (out / name).read_bytes() == (reference / name).read_bytes() for name in names
    )
    return told


if __name__ == "__main__":
    print(json.dumps(main(*(Path(argument) for argument in sys.argv[1:]))))
