"""GPUs as a user states them: `80GiB`, `4x24GiB`, `h100,rtx-4090`; for planning a machine one does not have."""

from __future__ import annotations

import re

from mm35local.errors import GIB, UsageError
from mm35local.models.datasheets import SHEETS, spelled, typical_name
from mm35local.models.gpus import Gpu

MAX_GPUS = 16
"""llama.cpp's own limit (GGML_CUDA_MAX_DEVICES)."""
_MAX_BYTES = 1 << 40
_ITEM = re.compile(r"(?:(\d+)\s*[x×*]\s*)?(.+)", re.DOTALL)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g|mib|mb|m)?", re.IGNORECASE)
_UNITS = {"gib": GIB, "g": GIB, "gb": 10**9, "mib": 1 << 20, "m": 1 << 20, "mb": 10**6}
_HINT = "for example: --gpus 80GiB, --gpus 4x24GiB, --gpus h100,rtx-4090"


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The stated cards, empty ones. A size stands for a common card of that size. Raises UsageError."""
    gpus: list[Gpu] = []
    for item in text.split(","):
        found = _ITEM.fullmatch(item.strip())
        if found is None:
            raise UsageError(f"--gpus {text!r}: expected a size or a card's name between the commas", _HINT)
        count = int(found[1] or 1)
        if not 1 <= count + len(gpus) <= MAX_GPUS or count == 0:
            raise UsageError(f"--gpus {text}: {count + len(gpus)} GPUs, expected 1 to {MAX_GPUS}", _HINT)
        gpus += [_stated(found[2].strip(), text)] * count
    return tuple(gpus)


def _stated(what: str, text: str) -> Gpu:
    size = _SIZE.fullmatch(what)
    if size is None or _keys(what):
        return _named(what, text)
    if size[2] is None:
        raise UsageError(f"--gpus {text}: {what} has no unit", f"{what}GiB, or the name of a card; {_HINT}")
    total = int(float(size[1]) * _UNITS[size[2].lower()])
    if not 0 < total <= _MAX_BYTES:
        raise UsageError(f"--gpus {text}: a card of {total:,} bytes, expected more than 0 and at most 1 TiB", _HINT)
    sheet = SHEETS[typical_name(total)]
    return Gpu(f"{what} card", total, total, sheet.bandwidth_gb * 1e9, sheet.tflops * 1e12, sheet.has_nvlink)


def _named(what: str, text: str) -> Gpu:
    keys = _keys(what)
    if not keys:
        raise UsageError(f"--gpus {text}: unknown card {what!r}", f"known: {', '.join(SHEETS)}; or a size: 24GiB")
    sheet = SHEETS[keys[0]]
    total = sheet.memory_mib << 20
    return Gpu(keys[0], total, total, sheet.bandwidth_gb * 1e9, sheet.tflops * 1e12, sheet.has_nvlink)


def _keys(what: str) -> list[str]:
    """The table's name for what a user calls a card: `4090` and `a100` are enough."""
    name = spelled(what)
    return [name] if name in SHEETS else [key for key in SHEETS if key in (f"rtx-{name}", f"{name}-80gb")]
