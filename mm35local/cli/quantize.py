"""`mm35 quantize`: a checkpoint folder becomes GGUF files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mm35local.cli.console import byte_progress
from mm35local.cli.options import Json, Threads


def register(app: typer.Typer) -> None:
    app.command("quantize")(quantize)


def quantize(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Folder with the weights, HF or native layout.")
    ],
    to: Annotated[list[str], typer.Option("--to", metavar="QUANT", help="Q4_K_M, Q5_K_M, Q8_0, ...; may be repeated.")],
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
    from quantize.convert import convert

    with byte_progress("converting") as progress, _told_when_interrupted():
        result = convert(
            checkpoint,
            out or paths.models_dir(),
            to,
            force=force,
            num_threads=threads or 0,
            on_progress=progress,
            on_warning=lambda text: print(f"warning: {text}", file=sys.stderr),
        )
    if as_json:
        files = [
            {"path": str(file.path), "quant": file.quant, "bytes": file.num_bytes, "sha256": file.sha256}
            for file in result.files
        ]
        print(json.dumps(files, indent=2))
        return
    from rich.filesize import decimal

    for file in result.files:
        print(f"{file.path}  {decimal(file.num_bytes)}{'  (was there already)' if file.is_kept else ''}")
    if result.num_skipped:
        print(f"text only: {result.num_skipped} tensors of the vision tower were left out", file=sys.stderr)


@contextmanager
def _told_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what was converted is kept, and the same command goes on from there", file=sys.stderr)
        raise
