"""`mm35 plan --plot`: memory against context for each quant, as a picture. matplotlib is an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mm35local.errors import GIB, UsageError

if TYPE_CHECKING:
    from mm35local.models.geometry import Geometry
    from mm35local.models.gpus import Machine
    from mm35local.models.plan import Wish

_NUM_POINTS = 33


def draw(file: Path, name: str, geometries: Mapping[str, Geometry], machine: Machine, wish: Wish) -> None:
    """Write `file` (png, svg or pdf). Raises UsageError without matplotlib or where it cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib", "pip install matplotlib") from error
    from mm35local.models import memory

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    kv_type = wish.kv_type or "q8_0"
    for quant, geometry in geometries.items():
        shape = geometry.shape
        contexts = [max(256, shape.n_ctx_train * point // (_NUM_POINTS - 1)) for point in range(_NUM_POINTS)]
        totals = [_total_bytes(geometry, machine, replace(wish, kv_type=kv_type), n_ctx) / GIB for n_ctx in contexts]
        axes.plot([n_ctx / 1024 for n_ctx in contexts], totals, label=quant)
    free = machine.gpu_free_bytes or machine.ram_free_bytes
    axes.axhline(free / GIB, color="black", linestyle="--", label=f"{free / GIB:.1f} GiB free")
    axes.set(xlabel="context, Ki tokens", ylabel="GiB", title=f"{name}, KV {kv_type}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    assert kv_type in memory.KV_TYPES, "checked by the plan"
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"--plot {file}: {error}", "give a .png in a folder that exists") from error


def _total_bytes(geometry: Geometry, machine: Machine, wish: Wish, n_ctx: int) -> int:
    from mm35local.models import memory
    from mm35local.models.plan import gpu_load
    from mm35local.models.split import allowed_splits

    kv_type = wish.kv_type or "q8_0"
    split = wish.split or allowed_splits(geometry.shape, len(machine.gpus))[0]
    load = gpu_load(geometry, wish, kv_type, n_ctx, split, machine.gpus)
    kv = load.kv_layer_bytes * len(geometry.layer_bytes)
    if not machine.gpus:
        n_seq = memory.num_sequences(wish.num_slots)
        compute = memory.compute_bytes(geometry.shape, kv_type, n_ctx, wish.n_batch, n_seq=n_seq)
        return geometry.num_bytes + kv + compute + load.beside.ram_bytes + memory.HOST_RESERVE_BYTES
    weights = sum(geometry.layer_bytes) + geometry.head_bytes
    return weights + kv + load.device_bytes * len(machine.gpus) + load.beside.card_bytes
