"""All the ways to run one model on one machine, and which of them suits a goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mm35local.errors import DoesNotFit
from mm35local.models.context_length import GOOD_CTX
from mm35local.models.geometry import Geometry
from mm35local.models.gpus import Machine
from mm35local.models.memory import KV_TYPES
from mm35local.models.plan import Plan, Wish, make_plan

_LEAST_GOOD_CTX = 8192


class Goal(StrEnum):
    """What to give the memory to."""

    QUALITY = "quality"
    """The largest quant that leaves a good context, and KV no coarser than q8_0."""
    CONTEXT = "context"
    """The longest context; among equals the larger quant and the finer KV."""
    SPEED = "speed"
    """The most tokens/s of one stream."""


@dataclass(frozen=True, slots=True)
class Option:
    """One quant with one KV type: a plan, or the reason why there is none."""

    quant: str
    kv_type: str
    plan: Plan | None
    problem: DoesNotFit | None = None

    @property
    def is_whole(self) -> bool:
        """Does the CPU stay out of it (or do all of it)?"""
        return self.plan is not None and (self.plan.num_cpu_layers == 0 or not self.plan.shares)


def list_options(geometries: Mapping[str, Geometry], machine: Machine, wish: Wish) -> list[Option]:
    """Every quant with every KV type asked for, as long a context as fits unless the wish names one."""
    kv_types = (wish.kv_type,) if wish.kv_type else KV_TYPES if wish.has_flash else ("f16",)
    return [
        _option(quant, kv_type, geometry, machine, replace(wish, kv_type=kv_type))
        for quant, geometry in geometries.items()
        for kv_type in kv_types
    ]


def choose(options: Sequence[Option], goal: Goal, n_ctx: int | None = None) -> Option:
    """The option that serves `goal`; parts on the CPU only when nothing else fits. Raises DoesNotFit with the sums.

    Where the CPU must take part, each GiB it reads costs what a card does in tens: then quality means the fastest, too.
    """
    fitting = [option for option in options if option.plan is not None]
    if not fitting:
        raise min((option.problem for option in options if option.problem), key=lambda problem: problem.needed_bytes)
    whole = [option for option in fitting if option.is_whole]
    if not whole and goal is Goal.QUALITY:
        goal = Goal.SPEED
    return max(whole or fitting, key=lambda option: _rank(option, goal, n_ctx))


def _option(quant: str, kv_type: str, geometry: Geometry, machine: Machine, wish: Wish) -> Option:
    try:
        return Option(quant, kv_type, make_plan(geometry, machine, wish))
    except DoesNotFit as problem:
        return Option(quant, kv_type, None, problem)


def _rank(option: Option, goal: Goal, n_ctx: int | None) -> tuple[float, ...]:
    plan = option.plan
    assert plan is not None, "only what fits is ranked"
    fineness = -float(KV_TYPES.index(option.kv_type))
    weights = float(plan.geometry.num_bytes)
    enough = float(plan.n_ctx >= min(_LEAST_GOOD_CTX, plan.geometry.shape.n_ctx_train, n_ctx or _LEAST_GOOD_CTX))
    is_fine = float(option.kv_type in ("f16", "q8_0"))
    if goal is Goal.CONTEXT:
        return (is_fine, float(plan.n_ctx), weights, fineness)
    if goal is Goal.SPEED:
        return (enough, is_fine, round(plan.decode, 1), fineness, float(plan.n_ctx))
    good = float(plan.n_ctx >= min(n_ctx or GOOD_CTX, plan.geometry.shape.n_ctx_train))
    return (good, enough, is_fine, weights, fineness)
