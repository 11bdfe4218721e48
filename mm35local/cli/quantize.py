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
    Consume,
    Force,
    Imatrix,
    Latest,
    Mmproj,
    OnlyPlan,
    Out,
    SplitMaxSize,
    TensorType,
    To,
    Verify,
)
from mm35local.cli.quantize_plan import prove, show_plan, supply_of

if TYPE_CHECKING:
    from quantize.make import ConvertedFile
    from quantize.output import PlannedOutput


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
    consume: Consume = False,
    latest: Latest = False,
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
    from quantize.make import make
    from quantize.plan import plan_everything
    from quantize.source import fetch_source
    from quantize.split import parse_split_size

    folder, num_threads = out or paths.models_dir(), threads or 0
    options = Options(tuple(tensor_type or ()), imatrix, parse_split_size(split_max_size) if split_max_size else None)
    outputs: list[PlannedOutput] = []
    with _told_when_interrupted(outputs, folder):
        source = fetch_source(checkpoint, is_latest=latest, on_note=_note)
        planned = plan_everything(source.folder, folder, to or [], mmproj, options)
        for warning in planned.warnings:
            _warn(warning)
        for note in planned.notes(num_threads, is_forced=force, is_tried=not plan):
            _note(note)
        if plan:
            show_plan(planned, folder, source, consume, num_threads, as_json)
            return
        outputs += planned.outputs
        supply = supply_of(
            source, planned, is_consuming=consume, is_proof=proof, num_threads=num_threads, on_warning=_warn
        )
        with byte_progress("converting") as progress:
            files = make(planned.jobs, supply, force=force, num_threads=num_threads, on_progress=progress)
        if proof:
            prove(planned, num_threads)
    _tell(files, 0 if consume else planned.num_skipped, as_json)


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


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
def _told_when_interrupted(outputs: Sequence[PlannedOutput], folder: Path) -> Iterator[None]:
    """Ctrl-C: two lines as for an error, what is safe and what to do; `app` then ends with 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: {_durable(outputs, folder)}", file=sys.stderr)
        print("hint: the same command goes on from there", file=sys.stderr)
        raise


def _durable(outputs: Sequence[PlannedOutput], folder: Path) -> str:
    from rich.filesize import decimal

    parts = [
        f"{decimal(output.durable_bytes())} of {decimal(output.num_bytes)} of {output.stem.name}" for output in outputs
    ]
    return f"safe in {folder}: {', '.join(parts)}" if parts else "nothing was converted yet"
