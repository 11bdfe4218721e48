"""`mm35 quantize`: a checkpoint folder becomes GGUF files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mm35local.cli.console import byte_progress
from mm35local.cli.options import Json, Threads
from mm35local.cli.quantize_options import (
    Checkpoint,
    Force,
    Imatrix,
    Mmproj,
    OnlyPlan,
    Out,
    SplitMaxSize,
    TensorType,
    To,
    Verify,
)
from mm35local.cli.quantize_plan import prove, show_plan

if TYPE_CHECKING:
    from quantize.convert import ConvertResult, Options
    from quantize.make import ConvertedFile


def register(app: typer.Typer) -> None:
    app.command("quantize")(quantize)


def quantize(
    checkpoint: Checkpoint,
    to: To = None,
    mmproj: Mmproj = None,
    tensor_type: TensorType = None,
    imatrix: Imatrix = None,
    split_max_size: SplitMaxSize = None,
    plan: OnlyPlan = False,
    proof: Verify = False,
    out: Out = None,
    force: Force = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint to GGUF: one read of the source for every quant asked for.

    Interrupt it, or pull the plug: the same command goes on where it stopped.
    """
    from mm35local import paths
    from quantize.convert import Options
    from quantize.source import fetch_source
    from quantize.split import parse_split_size

    folder = out or paths.models_dir()
    options = Options(tuple(tensor_type or ()), imatrix, parse_split_size(split_max_size) if split_max_size else None)
    checkpoint = fetch_source(checkpoint)
    if plan:
        show_plan(checkpoint, folder, to or [], mmproj, options, threads or 0, as_json)
        return
    files: list[ConvertedFile] = []
    num_skipped = 0
    with _told_when_interrupted():
        if mmproj:
            files.append(_convert_vision(checkpoint, folder, mmproj, force, threads or 0))
        if to or not mmproj:
            result = _convert_text(checkpoint, folder, to or [], options, force, threads or 0)
            files += result.files
            num_skipped = 0 if mmproj else result.num_skipped
            if proof:
                prove(checkpoint, folder, to or [], options, threads or 0)
    _tell(files, num_skipped, as_json)


def _convert_vision(checkpoint: Path, folder: Path, kind: str, force: bool, num_threads: int) -> ConvertedFile:
    from quantize.vision import write_mmproj

    with byte_progress("converting the vision part") as progress:
        return write_mmproj(checkpoint, folder, kind, force=force, num_threads=num_threads, on_progress=progress)


def _convert_text(
    checkpoint: Path, folder: Path, to: Sequence[str], options: Options, force: bool, num_threads: int
) -> ConvertResult:
    from quantize.convert import convert

    with byte_progress("converting") as progress:
        return convert(
            checkpoint,
            folder,
            to,
            options,
            force=force,
            num_threads=num_threads,
            on_progress=progress,
            on_warning=lambda text: print(f"warning: {text}", file=sys.stderr),
        )


def _tell(files: Sequence[ConvertedFile], num_skipped: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_fields(file) for file in files], indent=2))
        return
    _print(files)
    if num_skipped:
        print(
            f"text only: {num_skipped} tensors of the vision tower were left out; --mmproj f16 converts them",
            file=sys.stderr,
        )


def _fields(file: ConvertedFile) -> dict[str, str | int]:
    return {"path": str(file.path), "quant": file.quant, "bytes": file.num_bytes, "sha256": file.sha256}


def _print(files: Sequence[ConvertedFile]) -> None:
    from rich.filesize import decimal

    for file in files:
        print(f"{file.path}  {decimal(file.num_bytes)}{'  (was there already)' if file.is_kept else ''}")


@contextmanager
def _told_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what was converted is kept, and the same command goes on from there", file=sys.stderr)
        raise
