"""`mm35 models` and `mm35 pull`: what there is, what is here, what fits; and fetching one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.cli.options import Json
from mm35local.errors import GIB

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    app.command("models")(list_models)
    app.command("pull")(pull)


def list_models(as_json: Json = False) -> None:
    """List the models: which are here, which fit this machine."""
    rows = _rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_table(rows))
    sources = {row["model"]: row["source"] for row in rows if row["origin"] == "convert" and not row["path"]}
    for model, source in sources.items():
        console.print(f"\n{model} is converted here, from {source}; --plan tells what it takes:", soft_wrap=True)
        console.print(f"  mm35 quantize {source} --to QUANT --consume", soft_wrap=True)


def pull(name: Annotated[str, typer.Argument(metavar="NAME", help="A model of `mm35 models`, or NAME:QUANT.")]) -> None:
    """Fetch a model's file."""
    from mm35local.cli.prepare import choose, fetch

    print(fetch(choose(name)))


def _rows() -> list[dict[str, Any]]:
    from mm35local.cli.prepare import catalog, locate
    from mm35local.models.gpus import detect_machine
    from mm35local.models.select import needed_bytes

    free = detect_machine().largest_free_bytes
    return [
        {
            "model": model_id,
            "title": entry.title,
            "quant": variant.quant,
            "bytes": variant.bytes,
            "fits": needed_bytes(entry, variant) <= free,
            "path": str(path) if (path := locate(variant)) else None,
            "origin": variant.origin.kind,
            "source": entry.source,
            "licence": entry.licence,
        }
        for model_id, entry in catalog().best_first()
        for variant in entry.variants
    ]


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("model", "quant"):
        table.add_column(title)
    table.add_column("GiB", justify="right")
    for title in ("fits", "here", "how to get it"):
        table.add_column(title)
    for row in rows:
        how = "mm35 quantize" if row["origin"] == "convert" else f"mm35 pull {row['model']}:{row['quant']}"
        fits = "[green]yes[/]" if row["fits"] else "[dim]no[/]"
        here = "[green]yes[/]" if row["path"] else "[dim]no[/]"
        table.add_row(row["model"], row["quant"], f"{row['bytes'] / GIB:.1f}", fits, here, "" if row["path"] else how)
    return table
