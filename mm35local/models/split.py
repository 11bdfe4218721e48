"""The ways llama.cpp divides a model among cards, and what each allows."""

from __future__ import annotations

from enum import StrEnum

from mm35local.errors import UsageError
from mm35local.models.mixes import Shape


class Split(StrEnum):
    NONE = "none"
    """One card holds all."""
    LAYER = "layer"
    """Whole layers in turn: any mix of cards, no traffic to speak of, but one card works at a time."""
    ROW = "row"
    """Matrices by rows through CUDA's split buffers: older, and slower than `tensor`. Never chosen by itself."""
    TENSOR = "tensor"
    """Every matrix and the KV heads cut across the cards, which work at once: the fastest decode."""


def allowed_splits(
    shape: Shape, num_gpus: int, *, flash_attention: bool = True, has_remote: bool = False
) -> tuple[Split, ...]:
    """What may be chosen for that many cards, the fastest first; over a network whole layers only."""
    if num_gpus < 2:
        return (Split.NONE,)
    if flash_attention and num_gpus <= shape.n_head_kv and not has_remote:
        return (Split.TENSOR, Split.LAYER)
    return (Split.LAYER,)


def check_split(split: Split | None, shape: Shape, num_gpus: int, *, flash_attention: bool, kv_type: str) -> None:
    """Raises UsageError naming what stands against it."""
    if split in (Split.LAYER, Split.ROW, Split.TENSOR) and num_gpus < 2:
        raise UsageError(f"--split {split} needs at least 2 GPUs, {num_gpus} here", "leave --split out")
    if split is Split.TENSOR and num_gpus > shape.n_head_kv:
        raise UsageError(
            f"--split tensor cuts the {shape.n_head_kv} KV heads among {num_gpus} GPUs: too many", "--split layer"
        )
    if split is Split.TENSOR and not flash_attention:
        raise UsageError("--split tensor needs flash attention, which is off", "leave --no-flash-attention out")
    if kv_type != "f16" and not flash_attention:
        raise UsageError(f"KV type {kv_type} needs flash attention, which is off", "--kv f16")
