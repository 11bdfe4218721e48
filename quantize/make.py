"""Makes planned outputs out of tensors: goes on with what is there, streams, reads back, gives the names.

Invariant: what is durable is never computed again, whatever ended the process before; a shard is taken away only when
every output that needs it was read back from the disk and holds it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import CheckpointError, ConversionError, UsageError
from quantize.disk import Need, check_space, disk_needs
from quantize.job import Job, shards_of
from quantize.manifest import FileEntry, Manifest
from quantize.output import Output, PlannedOutput
from quantize.supply import Supply
from quantize.work import Meter, OnProgress, Work


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    quant: str
    path: Path
    num_bytes: int
    sha256: str
    is_kept: bool
    """It was there already, made by this same conversion."""


def make(
    jobs: Sequence[Job],
    supply: Supply | None = None,
    *,
    force: bool = False,
    num_threads: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[ConvertedFile, ...]:
    """The files of all outputs of `jobs`, all in one folder (made if absent), reading each tensor of a job once.

    What this same conversion has finished is kept, unless `force` is set. With a `supply` shards come and go singly.
    `num_threads` 0 takes every core this process may use. Raises CheckpointError, ConversionError, or UsageError for
    files of another conversion without `force`.
    """
    outputs = [output for job in jobs for output in job.outputs]
    finished = {} if force else {output: manifest for output in outputs if (manifest := output.finished())}
    missing = [left for job in jobs if (left := job.without(finished)).outputs]
    if not force:
        _check_existing(missing)
    if supply is None or not supply.can_bring:
        _check_shards(missing, force)
    shards, told = shards_of(jobs), on_progress or (lambda *step: None)
    made = _make_missing(missing, shards, supply, finished, num_threads or num_cpus(), told)
    entries = {output: manifest.files for output, manifest in finished.items()} | made
    return tuple(
        ConvertedFile(output.quant, file.path, entry.bytes, entry.sha256, output in finished)
        for output in outputs
        for file, entry in zip(output.files, entries[output], strict=True)
    )


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_existing(jobs: Sequence[Job]) -> None:
    existing = [path for job in jobs for output in job.outputs for path in output.existing()]
    if existing:
        raise UsageError(
            f"{existing[0]} exists already, from another conversion",
            "add --force to replace it, or choose another folder with -o",
        )


def _check_shards(jobs: Sequence[Job], is_forced: bool) -> None:
    """Raises CheckpointError for a tensor that must be read and of whose shard only the head is here."""
    is_here = {shard: shard.is_file() for shard in shards_of(jobs)}
    for job in jobs:
        for output, index in job.missing(is_forced):
            stored = job.decoder.tensors[index].stored
            if not is_here[stored.path]:
                raise CheckpointError(
                    str(stored.path),
                    f"its weights are not here, it was consumed or never fetched, and {output.quant} needs them",
                    "download the shard again into the same folder",
                    stored.name,
                )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(
            f"cannot make the folder {folder}: {error.strerror or error}", "choose another with -o"
        ) from error


def _make_missing(
    jobs: Sequence[Job],
    shards: Sequence[Path],
    supply: Supply | None,
    finished: Mapping[PlannedOutput, Manifest],
    num_threads: int,
    on_progress: OnProgress,
) -> dict[PlannedOutput, tuple[FileEntry, ...]]:
    """`shards` are all that `jobs` and `finished` are made of; only a `supply` looks at them one by one."""
    with ExitStack() as stack:
        works = []
        for job in jobs:
            _make_folder(job.outputs[0].stem.parent)
            works.append(Work(job, [stack.enter_context(Output(output)) for output in job.outputs], num_threads))
        _check_space(jobs, works, supply)
        brought = {shard: supply.bring_bytes(shard) for shard in shards if _is_needed(shard, works)} if supply else {}
        meter = Meter(works, sum(brought.values()), on_progress)
        if supply is not None:
            for shard in shards:
                _take(shard, works, supply, finished, meter)
        return {output: entries for work in works for output, entries in work.finish(meter.add).items()}


def _check_space(jobs: Sequence[Job], works: Sequence[Work], supply: Supply | None) -> None:
    if not jobs:
        return
    folder = jobs[0].outputs[0].stem.parent
    if supply is None:
        hint = "choose another folder with -o, or smaller quants; --consume deletes each shard that is converted"
        check_space([Need(folder, sum(work.missing_bytes for work in works))], hint)
    else:
        check_space(disk_needs(jobs, folder, supply))


def _is_needed(shard: Path, works: Sequence[Work]) -> bool:
    return any(work.needs(shard) for work in works)


def _take(
    shard: Path, works: Sequence[Work], supply: Supply, finished: Mapping[PlannedOutput, Manifest], meter: Meter
) -> None:
    if _is_needed(shard, works):
        with meter.fetching(supply.bring_bytes(shard)) as on_bytes:
            supply.bring(shard, on_bytes)
    if not supply.is_consuming:
        for work in works:
            work.stream(meter.add, shard)
    elif shard.is_file():
        for work in works:
            work.complete(shard, meter.add)
        supply.take_away(shard, finished)
