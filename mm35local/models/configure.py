"""From a plan to what the engine's worker is told: the one place where a field of one becomes a field of the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mm35local.engine.api import EngineConfig
from mm35local.models.gpus import Machine
from mm35local.models.plan import Plan


def configure(asked: EngineConfig, plan: Plan, machine: Machine, smaller: Iterable[Plan] = ()) -> EngineConfig:
    """`asked` with all that `plan`, made for `machine`, decides; `smaller` plans become its fallbacks."""
    fallbacks = tuple(configure(asked, each, machine) for each in smaller)
    beside = None if plan.beside.card is None else plan.gpus[plan.beside.card]
    return replace(
        asked,
        n_ctx=plan.n_ctx,
        n_batch=plan.n_batch,
        n_gpu_layers=plan.n_gpu_layers,
        kv_type=plan.kv_type,
        flash_attention=plan.flash_attention,
        split=plan.split,
        tensor_split=plan.tensor_split,
        main_gpu=machine.gpus.index(plan.gpus[0]) if plan.gpus else 0,
        beside_gpu=machine.gpus.index(beside) if beside else None,
        rpc=asked.rpc if plan.shares else (),
        planned=plan.buffer_bytes,
        fallbacks=fallbacks,
    )
