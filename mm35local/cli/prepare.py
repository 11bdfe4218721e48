"""From a wish (`--model`, `--ctx`) to a file that is here and a plan that fits, with progress on the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mm35local import paths
from mm35local.cli.console import byte_progress
from mm35local.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from mm35local.models.catalog import Catalog, Variant
    from mm35local.models.faults import Fault
    from mm35local.models.gguf_header import GgufHeader
    from mm35local.models.gpus import Machine
    from mm35local.models.plan import Plan, Wish
    from mm35local.models.projector import Projector
    from mm35local.models.select import Choice
    from mm35local.settings import Settings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model file that is here, its header, and how to load it."""

    choice: Choice
    header: GgufHeader
    plan: Plan
    machine: Machine
    faults: tuple[Fault, ...]
    """Mistakes in the file's header, which loading corrects."""
    projector: Projector | None = None
    """The vision part."""


def catalog() -> Catalog:
    from mm35local.models.catalog import load_catalog

    return load_catalog(paths.user_catalog_file())


def locate(variant: Variant) -> Path | None:
    from mm35local.models.download import locate as locate_in

    return locate_in(variant, paths.models_dir())


def choose(name: str | None) -> Choice:
    """The model meant by `name`, or the best one for this machine; its file may still have to be fetched."""
    from mm35local.models.gpus import detect_machine
    from mm35local.models.select import best_choice, named_choice

    if name is not None:
        return named_choice(name, catalog(), locate, paths.models_dir())
    return best_choice(catalog(), detect_machine(), locate, paths.models_dir())


def fetch(choice: Choice) -> Path:
    """The path of the chosen file, downloaded first where it is missing. Raises DownloadError."""
    from mm35local.models.download import download

    if choice.variant is None or choice.path.is_file():
        return choice.path
    with byte_progress(choice.variant.file) as progress:
        return download(choice.variant, paths.models_dir(), progress)


def prepare(settings: Settings) -> Prepared:
    """Choose, fetch, read the header and plan. Raises ModelError or UsageError before anything is loaded."""
    from mm35local.models.faults import find_faults
    from mm35local.models.geometry import from_header
    from mm35local.models.gguf_header import read_header
    from mm35local.models.gpus import detect_machine
    from mm35local.models.plan import make_plan
    from mm35local.models.projector import find_projector, read_projector
    from mm35local.models.remote import with_remote

    if settings.rpc and settings.gpu is False:
        raise UsageError("--cpu and --rpc contradict each other", "leave one of them out")
    machine = with_remote(detect_machine(), endpoints(settings))
    if settings.gpu and not machine.gpus:
        raise UsageError(
            "--gpu: llama.cpp can use no GPU here", "mm35 doctor tells why; without --gpu the CPU computes"
        )
    choice = choose(settings.model)
    header = read_header(fetch(choice))
    projector = read_projector(settings.mmproj, header) if settings.mmproj else find_projector(header)
    plan = make_plan(from_header(header), machine, wish_of(settings, projector))
    return Prepared(choice, header, plan, machine, find_faults(header), projector)


def endpoints(settings: Settings) -> tuple[str, ...]:
    """The RPC workers named, each once."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, settings.rpc.split(",")))))


def wish_of(settings: Settings, projector: Projector | None = None) -> Wish:
    """The part of the settings that the planner reads. Raises ModelFileError if the draft model is none."""
    from mm35local.models.draft import read_draft
    from mm35local.models.plan import Wish
    from mm35local.models.split import Split

    return Wish(
        n_ctx=settings.ctx,
        kv_type=settings.kv,
        split=Split(settings.split) if settings.split else None,
        use_gpu=settings.gpu,
        draft=read_draft(settings.draft) if settings.draft else None,
        num_slots=settings.parallel,
        flash_attention=settings.flash_attention,
        vision_bytes=projector.needed_bytes if projector else 0,
    )
