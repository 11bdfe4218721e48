"""`mm35 inspect` and `mm35 repair`: what a GGUF file is, what is wrong with it, and correcting that in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.cli.options import Json

if TYPE_CHECKING:
    from mm35local.models.inspect import Inspection
    from mm35local.models.repair import Repair

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .gguf file: a model or a projector.")]
_SHORT = 64


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)
    app.command("repair")(repair)


def inspect(file: File, as_json: Json = False) -> int:
    """Show what a GGUF file holds and what is wrong with it. Exit code 1 if something is."""
    from mm35local.models.inspect import inspect_file

    inspection = inspect_file(file)
    if as_json:
        print(json.dumps(_facts(inspection), indent=2, ensure_ascii=False))
    else:
        _print(inspection)
    return int(bool(inspection.warnings))


def repair(
    file: File,
    undo: Annotated[bool, typer.Option("--undo", help="Put the bytes back that a repair replaced.")] = False,
) -> int:
    """Correct known mistakes in a file's header, in place; the weights are not touched. --undo takes it back."""
    from mm35local.models import repair as repairs

    if undo:
        undone = repairs.undo(file)
        print(f"{undone.path}: as it was before the repair")
        return 0
    done = repairs.repair(file)
    _report(done)
    return int(bool(done.not_in_place))


def _report(done: Repair) -> None:
    for change in done.changes:
        print(f"{done.path}: {change}")
    if done.changes:
        print(f"undo with: mm35 repair --undo {done.path}  (the old bytes are in {done.record.name})")
    for fault in done.not_in_place:
        print(f"no room in the header to change it, so it stays: {fault}")
    if not done.changes and not done.not_in_place:
        print(f"{done.path}: nothing to repair")


def _facts(inspection: Inspection) -> dict[str, Any]:
    header = inspection.header
    return {
        "path": str(header.path),
        "bytes": header.file_bytes,
        "gguf_version": header.version,
        "architecture": header.architecture,
        "num_parameters": inspection.num_parameters,
        "bits_per_weight": round(inspection.bits_per_weight, 3),
        "types": [
            {"type": share.type_name, "tensors": share.num_tensors, "bytes": share.num_bytes}
            for share in inspection.shares
        ],
        "metadata": {key: _summary(value) for key, value in header.metadata.items()},
        "warnings": list(inspection.warnings),
    }


def _summary(value: Any) -> Any:
    """Long lists by their length, so that a vocabulary does not fill the screen."""
    return {"length": len(value)} if isinstance(value, list) and len(value) > _SHORT else value


def _print(inspection: Inspection) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.table import Table

    header, console = inspection.header, Console()
    console.print(
        f"[bold]{escape(str(header.path))}[/]  {decimal(header.file_bytes)}, GGUF {header.version}, "
        f"{len(header.tensors)} tensors, {inspection.num_parameters / 1e6:,.1f} M parameters, "
        f"{inspection.bits_per_weight:.2f} bits each",
        highlight=False,
    )
    keys = Table(box=None, show_header=False)
    keys.add_column(no_wrap=True, min_width=max(map(len, header.metadata), default=0))
    for key, value in header.metadata.items():
        keys.add_row(escape(key), escape(_line(value)))
    console.print(keys)
    types = Table("type", "tensors", "bytes", box=None)
    for share in inspection.shares:
        types.add_row(share.type_name, str(share.num_tensors), decimal(share.num_bytes))
    console.print(types)
    for warning in inspection.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _line(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value)) if len(value) <= 8 else f"{len(value)} values"
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}… ({len(text)} characters)"
