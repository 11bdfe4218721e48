"""`mm35 quantize`: a checkpoint folder becomes GGUF files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm35local.cli.console import byte_progress
from mm35local.cli.options import Json, Threads
from mm35local.cli.quantize_plan import prove, show_plan

if TYPE_CHECKING:
    from quantize.make import ConvertedFile


def register(app: typer.Typer) -> None:
    app.command("quantize")(quantize)


def quantize(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder with the weights, HF or native layout.")
    ],
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="QUANT", help="Q4_K_M, Q5_K_M, Q8_0, ...; may be repeated.")
    ] = None,
    mmproj: Annotated[
        str | None,
        typer.Option("--mmproj", metavar="TYPE", help="Also the vision part, for images: f16, q8_0 or bf16."),
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option("--tensor-type", metavar="REGEX=TYPE", help="Another type for some tensors; may be repeated."),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="Importance matrix from llama-imatrix.")
    ] = None,
    split_max_size: Annotated[
        str | None,
        typer.Option("--split-max-size", metavar="SIZE", help="Several files of at most e.g. 40G of tensors each."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell what it takes: bytes, disk, memory, time.")] = False,
    proof: Annotated[
        bool, typer.Option("--verify", help="Then read all again: hashes, distance from the source, a trial run.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Output folder; default: where mm35 looks for models."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint to GGUF: one read of the source for every quant asked for.

    Interrupt it, or pull the plug: the same command goes on where it stopped.
    """
    from mm35local import paths
    from quantize.convert import Options, convert
    from quantize.split import parse_split_size
    from quantize.vision import write_mmproj

    folder = out or paths.models_dir()
    options = Options(tuple(tensor_type or ()), imatrix, parse_split_size(split_max_size) if split_max_size else None)
    if plan:
        show_plan(checkpoint, folder, to or [], options, threads or 0, as_json)
        return
    files: list[ConvertedFile] = []
    num_skipped = 0
    with _told_when_interrupted():
        if mmproj:
            with byte_progress("converting the vision part") as progress:
                file = write_mmproj(
                    checkpoint, folder, mmproj, force=force, num_threads=threads or 0, on_progress=progress
                )
            files.append(file)
        if to or not mmproj:
            with byte_progress("converting") as progress:
                result = convert(
                    checkpoint,
                    folder,
                    to or [],
                    options,
                    force=force,
                    num_threads=threads or 0,
                    on_progress=progress,
                    on_warning=lambda text: print(f"warning: {text}", file=sys.stderr),
                )
            num_skipped = result.num_skipped
            files += result.files
            if proof:
                prove(checkpoint, folder, to or [], options, threads or 0)
    if as_json:
        print(json.dumps([_fields(file) for file in files], indent=2))
        return
    _print(files)
    if num_skipped and not mmproj:
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
