"""Puts a model's parts on devices: layers one after the other, or every matrix cut across the cards.

Invariant: a placement never promises a device more than it has; `None` says that it does not fit.
llama.cpp gives layer i to the card in whose share of `tensor_split` i/(n_layer+1) falls, counting the head as the last
layer, and keeps the token embedding in RAM: integer shares therefore land exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm35local.models.geometry import Geometry
from mm35local.models.gpus import Gpu

_NUM_HALVINGS = 14


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside the model, a draft model and the vision tower: whole on one card, or in RAM."""

    card: int | None = None
    """Index among the cards; None: in RAM."""
    card_bytes: int = 0
    ram_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What must be placed: bytes of one layer's KV, and what each card pays besides."""

    geometry: Geometry
    kv_layer_bytes: int
    device_bytes: int
    """Per card: compute buffer, scratch, CUDA context, reserve."""
    beside: Beside = Beside()


@dataclass(frozen=True, slots=True)
class Share:
    """One card's part. `split` is its entry of llama.cpp's tensor_split."""

    num_layers: int
    weight_bytes: int
    kv_bytes: int
    other_bytes: int
    split: float

    @property
    def num_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.other_bytes


def place_layers(load: Load, gpus: Sequence[Gpu], first_layer: int = 0) -> tuple[Share, ...] | None:
    """Layers from `first_layer` on and the head, in order, each card about equally full. None: they do not fit."""
    if _fill(load, gpus, first_layer, 1.0) is None:
        return None
    low, high = 0.0, 1.0
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _fill(load, gpus, first_layer, middle) else (middle, high)
    return _fill(load, gpus, first_layer, high)


def can_place_layers(load: Load, gpus: Sequence[Gpu]) -> bool:
    return _fill(load, gpus, 0, 1.0) is not None


def place_tensors(load: Load, gpus: Sequence[Gpu]) -> tuple[Share, ...] | None:
    """Every matrix cut in proportion to the room on each card, equal cards equally; KV by heads. None: no room."""
    rooms = [gpu.free_bytes - _others(load, index) for index, gpu in enumerate(gpus)]
    num_layers = len(load.geometry.layer_bytes)
    kv = load.kv_layer_bytes * num_layers
    weights = sum(load.geometry.layer_bytes) + load.geometry.head_bytes
    if min(rooms) <= 0 or kv + weights > sum(rooms):
        return None
    # Equal parts while they fit: unequal cards compute at the pace of the fullest.
    equal = (kv + weights) / len(rooms) <= min(rooms)
    parts = [1 / len(rooms) if equal else room / sum(rooms) for room in rooms]
    return tuple(
        Share(num_layers, round(weights * part), round(kv * part), _others(load, index), part)
        for index, part in enumerate(parts)
    )


def _fill(load: Load, gpus: Sequence[Gpu], first_layer: int, fullness: float) -> tuple[Share, ...] | None:
    """First fit in order, filling the room of each card to `fullness`."""
    geometry, end = load.geometry, len(load.geometry.layer_bytes)
    shares, layer = [], first_layer
    for index, gpu in enumerate(gpus):
        room = (gpu.free_bytes - _others(load, index)) * fullness
        if room < 0 and index == load.beside.card:
            return None
        start, weights = layer, 0
        while layer <= end:
            more = geometry.layer_bytes[layer] if layer < end else geometry.head_bytes
            kv_after = load.kv_layer_bytes * (min(layer + 1, end) - start)
            if weights + more + kv_after > room:
                break
            weights += more
            layer += 1
        num_layers = max(0, min(layer, end) - start)
        kv = load.kv_layer_bytes * num_layers
        shares.append(Share(num_layers, weights, kv, _others(load, index), layer - start))
    return tuple(shares) if layer > end else None


def _others(load: Load, index: int) -> int:
    return load.device_bytes + (load.beside.card_bytes if index == load.beside.card else 0)
