"""Which model is meant: by name, by path, or, when nothing is said, the best that this machine can hold.

The automatic choice never starts a large download: it takes what is here, or the embedded default. What else
would fit is said in its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import GIB, DoesNotFit, ModelFileError, UnknownModel
from mm35local.models.catalog import Catalog, ConvertOrigin, Entry, Variant, WheelOrigin
from mm35local.models.gpus import Machine
from mm35local.models.memory import COMPUTE_RESERVE_BYTES

_LEAST_CTX = 8192
"""A model that cannot hold this much conversation is no chat partner: it counts as not fitting."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`path` is where the file is or will be; `entry` and `variant` are None for a file outside the catalog."""

    model_id: str
    path: Path
    entry: Entry | None = None
    variant: Variant | None = None
    reason: str | None = None


Locate = Callable[[Variant], Path | None]
"""Where a variant's file is on this machine, or None."""


def named_choice(name: str, catalog: Catalog, locate: Locate, models_dir: Path) -> Choice:
    """`name` is a catalog id, `id:QUANT`, or the path of a GGUF file. Raises UnknownModel, ModelFileError, UsageError.

    Without a quant, the largest variant that is here is meant, else the first in the catalog.
    """
    model_id, _, quant = name.partition(":")
    if model_id in catalog.models:
        entry = catalog.models[model_id]
        here = [variant for variant in entry.variants if locate(variant)]
        variant = entry.variant(quant) if quant else max(here, key=lambda v: v.bytes, default=entry.variants[0])
        return Choice(model_id, locate(variant) or models_dir / variant.file, entry, variant)
    path = Path(name).expanduser()
    if path.is_file():
        return _file_choice(path, catalog)
    if path.suffix == ".gguf" or path.parent != Path():
        raise ModelFileError(str(path), "no such file", "check the path, or name a model of: mm35 models")
    raise UnknownModel(name, tuple(catalog.models))


def _file_choice(path: Path, catalog: Catalog) -> Choice:
    """A file keeps its catalog entry's defaults when it carries a variant's name."""
    for model_id, entry in catalog.models.items():
        for variant in entry.variants:
            if variant.file == path.name:
                return Choice(model_id, path, entry, variant)
    return Choice(path.stem, path)


def best_choice(catalog: Catalog, machine: Machine, locate: Locate, models_dir: Path) -> Choice:
    """The highest-ranked model that fits and is here or embedded, its largest such variant; says why in `reason`.

    Raises DoesNotFit when not even the smallest fits.
    """
    for model_id, entry in catalog.best_first():
        fitting = [variant for variant in entry.variants if needed_bytes(entry, variant) <= machine.largest_free_bytes]
        ready = [variant for variant in fitting if locate(variant) or isinstance(variant.origin, WheelOrigin)]
        if ready:
            variant = max(ready, key=lambda v: v.bytes)
            path = locate(variant) or models_dir / variant.file
            return Choice(model_id, path, entry, variant, _reason(catalog, machine, entry))
    _, last = list(catalog.best_first())[-1]
    raise DoesNotFit(last.title, needed_bytes(last, last.smallest), machine.largest_free_bytes)


def needed_bytes(entry: Entry, variant: Variant) -> int:
    """Weights, the least conversation in the smallest KV type that still answers well (q8_0), and buffers."""
    per_token = entry.kv_bytes_per_token.get("q8_0") or min(entry.kv_bytes_per_token.values())
    return variant.bytes + min(_LEAST_CTX, entry.n_ctx_train) * per_token + COMPUTE_RESERVE_BYTES


def _reason(catalog: Catalog, machine: Machine, chosen: Entry) -> str | None:
    """One line: why the best model of all is not the one that runs, and which better one could be had."""
    _, best = next(catalog.best_first())
    if best is chosen:
        return None
    free = machine.largest_free_bytes
    better = [
        (model_id, entry)
        for model_id, entry in catalog.best_first()
        if entry.rank > chosen.rank and needed_bytes(entry, entry.smallest) <= free
    ]
    if best in (entry for _, entry in better):
        why = f"{best.title} fits here but its file is not here yet"
    else:
        needed = needed_bytes(best, best.smallest)
        why = f"{best.title} needs {needed / GIB:.0f} GiB of GPU memory or RAM; {free / GIB:.0f} GiB here"
    if machine.num_unusable_gpus:
        why += f" ({machine.num_unusable_gpus} GPU unused: llama.cpp is built without CUDA)"
    more = f" (better: {_how_to_get(*better[0])})" if better else ""
    return f"{why}: using {chosen.title} instead{more}"


def _how_to_get(model_id: str, entry: Entry) -> str:
    if isinstance(origin := entry.smallest.origin, ConvertOrigin):
        return f"mm35 quantize {origin.repo} --to {entry.smallest.quant}"
    return f"mm35 pull {model_id}"
