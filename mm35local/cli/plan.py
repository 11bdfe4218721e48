"""`mm35 plan`: which quant, KV type and context fit, on this machine or on a stated one; and which to take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm35local.cli.options import Ctx, Json, Kv, Rpc, SplitMode
from mm35local.errors import UsageError

if TYPE_CHECKING:
    from mm35local.models.catalog import Entry
    from mm35local.models.fit import Goal
    from mm35local.models.geometry import Geometry
    from mm35local.models.gpus import Machine
    from mm35local.models.plan import Wish
    from mm35local.models.projector import Projector


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of `mm35 models`, NAME:QUANT, or a file.")],
    gpus: Annotated[
        str | None, typer.Option(metavar="CARDS", help="Other cards: 80GiB, 4x24GiB, h100,rtx-4090; default: yours.")
    ] = None,
    ram: Annotated[
        float | None, typer.Option(min=0, metavar="GIB", help="RAM of that machine; default: what is free here.")
    ] = None,
    ctx: Ctx = None,
    kv: Kv = None,
    split: SplitMode = None,
    rpc: Rpc = None,
    fit: Annotated[str, typer.Option(metavar="quality|context|speed", help="What to give the memory to.")] = "quality",
    mmproj: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="Vision part; default: the one beside the model."
        ),
    ] = None,
    draft: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, metavar="FILE", help="Draft model to keep room for.")
    ] = None,
    as_json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw context against memory (needs matplotlib).")
    ] = None,
) -> None:
    """Will it fit, and how fast? A table to decide from, and the command for the best row."""
    from mm35local.cli.plan_report import Report, print_report, to_json
    from mm35local.models.fit import choose, list_options

    projector = _projector(model, mmproj)
    wish = _wish(ctx, kv, split, projector, draft)
    goal = _goal(fit)
    machine = _machine(gpus, ram)
    if rpc:
        from mm35local.models.remote import with_remote

        machine = with_remote(machine, rpc)
    name, geometries = _geometries(model)
    options = list_options(geometries, machine, wish)
    chosen = choose(options, goal, ctx)
    if plot is not None:
        from mm35local.cli.plan_plot import draw

        draw(plot, name, geometries, machine, wish)
    report = Report(model, name, machine, options, chosen, goal, projector, is_stated=gpus is not None)
    if as_json:
        print(json.dumps(to_json(report), indent=2))
        return
    print_report(report)


def _projector(model: str, mmproj: Path | None) -> Projector | None:
    """The vision part that `mm35 serve` would load: the one named, else the one beside a model that is here."""
    from mm35local import paths
    from mm35local.cli.prepare import catalog, locate
    from mm35local.models.gguf_header import read_header
    from mm35local.models.projector import find_projector, read_projector
    from mm35local.models.select import named_choice

    path = named_choice(model, catalog(), locate, paths.models_dir()).path
    header = read_header(path) if path.is_file() else None
    if mmproj:
        return read_projector(mmproj, header)
    return find_projector(header) if header else None


def _wish(ctx: int | None, kv: str | None, split: str | None, projector: Projector | None, draft: Path | None) -> Wish:
    from mm35local.models.draft import read_draft
    from mm35local.models.plan import Wish
    from mm35local.models.split import Split

    if split is not None and split not in list(Split):
        raise UsageError(f"--split {split}: no such way", f"known: {', '.join(Split)}")
    return Wish(
        n_ctx=ctx,
        kv_type=kv,
        split=Split(split) if split else None,
        vision_bytes=projector.needed_bytes if projector else 0,
        draft=read_draft(draft) if draft else None,
    )


def _goal(fit: str) -> Goal:
    from mm35local.models.fit import Goal

    if fit not in list(Goal):
        raise UsageError(f"--fit {fit}: no such goal", f"known: {', '.join(Goal)}")
    return Goal(fit)


def _machine(gpus: str | None, ram_gib: float | None) -> Machine:
    from mm35local.errors import GIB
    from mm35local.models.gpus import detect_machine
    from mm35local.models.stated import parse_gpus

    machine = detect_machine()
    if ram_gib is not None:
        machine = replace(machine, ram_free_bytes=int(ram_gib * GIB))
    if gpus is None:
        return machine
    stated = replace(machine, gpus=parse_gpus(gpus), num_unusable_gpus=0, driver=None)
    return replace(stated, num_decode_threads=0, num_batch_threads=0)


def _geometries(model: str) -> tuple[str, dict[str, Geometry]]:
    """The model's name, and its geometry at each quant: from the file where it is here, else from the catalog."""
    from mm35local import paths
    from mm35local.cli.prepare import catalog, locate
    from mm35local.models.select import named_choice

    choice = named_choice(model, catalog(), locate, paths.models_dir())
    if choice.entry is None or choice.variant is None or model != choice.model_id:
        quant = choice.variant.quant if choice.variant else "file"
        return choice.model_id, {quant: _geometry(choice.model_id, choice.entry, quant, choice.path)}
    return choice.model_id, {
        variant.quant: _geometry(choice.model_id, choice.entry, variant.quant, locate(variant))
        for variant in choice.entry.variants
        if choice.entry.shape or locate(variant) or variant is choice.variant
    }


def _geometry(name: str, entry: Entry | None, quant: str, path: Path | None) -> Geometry:
    from mm35local.models.geometry import from_header, from_shape
    from mm35local.models.gguf_header import read_header
    from mm35local.models.mixes import Shape

    if path is not None and path.is_file():
        return from_header(read_header(path))
    shape = Shape(**entry.shape.model_dump(), n_ctx_train=entry.n_ctx_train) if entry and entry.shape else None
    geometry = from_shape(f"{name}:{quant}", shape, quant) if shape else None
    if geometry is None:
        raise UsageError(f"{name}:{quant} is not here, and models.toml has no shape of it", f"mm35 pull {name}:{quant}")
    return geometry
