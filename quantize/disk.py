"""How much disk a conversion takes at its worst moment, and whether it is there.

Consuming a checkpoint, shard after shard: a shard may have to be fetched, its tensors are written into every output,
then it is deleted. The peak is the highest level in between, not the sum.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import GIB, ConversionError
from quantize.job import Job, shards_of
from quantize.supply import Supply


@dataclass(frozen=True, slots=True)
class Step:
    """Bytes of disk while one shard is consumed: first fetched and written, then freed."""

    fetched: int
    written: int
    freed: int


@dataclass(frozen=True, slots=True)
class Need:
    folder: Path
    """One on the file system in question."""
    num_bytes: int
    """At the worst moment, on top of what is taken now."""

    @property
    def available_bytes(self) -> int:
        return shutil.disk_usage(existing_folder(self.folder)).free


def peak(steps: Iterable[Step]) -> int:
    """The highest level above that at the start."""
    level = highest = 0
    for step in steps:
        level += step.fetched + step.written
        highest = max(highest, level)
        level -= step.freed
    return highest


def disk_needs(jobs: Sequence[Job], folder: Path, supply: Supply, is_forced: bool = False) -> tuple[Need, ...]:
    """Of converting what `supply` gives; one for each file system, that of the outputs' `folder` first."""
    missing = [tensor for job in jobs for tensor in _missing_bytes(job, is_forced)]
    steps = []
    for shard in shards_of(jobs):
        written = sum(num_bytes for path, num_bytes in missing if path == shard)
        fetched = supply.bring_bytes(shard) if written else 0
        freed = fetched if supply.is_consuming else 0
        steps.append(Step(fetched, written, supply.free_bytes(shard) if shard.is_file() else freed))
    if _device(folder) == _device(supply.folder):
        return (Need(folder, peak(steps)),)
    source = peak(Step(step.fetched, 0, step.freed) for step in steps)
    return Need(folder, sum(step.written for step in steps)), Need(supply.folder, source)


def _missing_bytes(job: Job, is_forced: bool) -> list[tuple[Path, int]]:
    """(shard, bytes in the output) of each tensor that an output lacks."""
    tensors = job.decoder.tensors
    return [(tensors[index].stored.path, output.tensor_bytes(index)) for output, index in job.missing(is_forced)]


def check_space(needs: Iterable[Need], hint: str = "choose another folder with -o, or fewer or smaller quants") -> None:
    """Raises ConversionError for a file system that has too little room."""
    for need in needs:
        if need.num_bytes > need.available_bytes:
            raise ConversionError(
                f"this needs {need.num_bytes / GIB:.1f} GiB of disk, "
                f"{need.folder} has {need.available_bytes / GIB:.1f} GiB free",
                hint,
            )


def existing_folder(folder: Path) -> Path:
    """The nearest folder above that is there: the file system that a folder to be made will stand on."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))


def _device(folder: Path) -> int:
    return existing_folder(folder).stat().st_dev
