"""Makes planned outputs out of tensors: goes on with what is there, streams, reads back, gives the names.

Invariant: what is durable is never computed again, whatever ended the process before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import GIB, ConversionError, UsageError
from quantize.booker import Booker
from quantize.decoder import Decoder
from quantize.manifest import FileEntry
from quantize.output import Output, PlannedOutput
from quantize.rows import stream_rows

OnProgress = Callable[[int, int], None]
"""Called with source bytes done and in all."""
_MAX_ATTEMPTS = 2
"""A tensor that was not read back as written is converted once more; twice means that the machine is at fault."""


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    quant: str
    path: Path
    num_bytes: int
    sha256: str
    is_kept: bool
    """It was there already, made by this same conversion."""


def make(
    decoder: Decoder,
    outputs: Sequence[PlannedOutput],
    *,
    force: bool = False,
    num_threads: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[ConvertedFile, ...]:
    """The files of `outputs`, all in one folder (made if absent), reading each tensor of `decoder` once for all.

    What this same conversion has finished is kept, unless `force` is set. `num_threads` 0 takes every core this process
    may use. Raises CheckpointError, ConversionError, or UsageError for files of another conversion without `force`.
    """
    finished = {} if force else {output: manifest.files for output in outputs if (manifest := output.finished())}
    missing = [output for output in outputs if output not in finished]
    if not force:
        _check_existing(missing)
    entries = finished | _make_missing(decoder, missing, num_threads or num_cpus(), on_progress or (lambda *step: None))
    return tuple(
        ConvertedFile(output.quant, file.path, entry.bytes, entry.sha256, output in finished)
        for output in outputs
        for file, entry in zip(output.files, entries[output], strict=True)
    )


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises ConversionError if the file system of `folder` has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise ConversionError(
            f"the outputs need {needed_bytes / GIB:.1f} GiB, {folder} has {free_bytes / GIB:.1f} GiB free",
            "choose another folder with -o, or fewer or smaller quants",
        )


def _check_existing(outputs: Sequence[PlannedOutput]) -> None:
    existing = [path for output in outputs for path in output.existing()]
    if existing:
        raise UsageError(
            f"{existing[0]} exists already, from another conversion",
            "add --force to replace it, or choose another folder with -o",
        )


def existing_folder(folder: Path) -> Path:
    """The nearest folder above that is there: the file system that a folder to be made will stand on."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(
            f"cannot make the folder {folder}: {error.strerror or error}", "choose another with -o"
        ) from error


def _make_missing(
    decoder: Decoder, missing: Sequence[PlannedOutput], num_threads: int, on_progress: OnProgress
) -> dict[PlannedOutput, tuple[FileEntry, ...]]:
    if not missing:
        return {}
    folder = missing[0].stem.parent
    _make_folder(folder)
    with ExitStack() as stack:
        outputs = [stack.enter_context(Output(output)) for output in missing]
        check_space(folder, sum(output.missing_bytes for output in outputs))
        for _ in range(_MAX_ATTEMPTS):
            _stream(decoder, outputs, num_threads, on_progress)
            with ThreadPoolExecutor(num_threads, "check") as pool:
                checked = list(pool.map(Output.check, outputs))
            entries = [files for files in checked if files is not None]
            if len(entries) == len(outputs):
                break
        else:
            raise ConversionError(
                f"{folder} does not give back what was written to it", "check the disk and the memory of this machine"
            )
        for output, files in zip(outputs, entries, strict=True):
            output.publish(files)
        return dict(zip(missing, entries, strict=True))


def _stream(decoder: Decoder, outputs: Sequence[Output], num_threads: int, on_progress: OnProgress) -> None:
    total_bytes = decoder.source_bytes
    done_bytes = sum(
        tensor.stored.num_bytes
        for index, tensor in enumerate(decoder.tensors)
        if not any(output.needs(index) for output in outputs)
    )

    def on_bytes(num_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += num_bytes
        on_progress(done_bytes, total_bytes)

    with Booker(outputs) as booker:
        stream_rows(decoder, outputs, num_threads, on_bytes, booker.add)
