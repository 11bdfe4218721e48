"""The plan as a person reads it (80 columns: a table, three sentences, a command), and as a program does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm35local.errors import GIB
from mm35local.models.context_length import GOOD_CTX
from mm35local.models.fit import Goal, Option

if TYPE_CHECKING:
    from rich.table import Table

    from mm35local.models.gpus import Machine
    from mm35local.models.plan import Plan
    from mm35local.models.projector import Projector

_BAR_CELLS = 10
_GOOD = "the largest quant that leaves a good context"
_FULL, _EMPTY = "█", "░"


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to tell."""

    model: str
    """As it was asked for: a catalog name, or a file's path."""
    name: str
    machine: Machine
    options: Sequence[Option]
    chosen: Option
    goal: Goal
    projector: Projector | None
    """The vision part that room is kept for."""
    is_stated: bool
    """The machine is not this one."""


def print_report(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(report.model)}[/] on {describe(report.machine)}", soft_wrap=True)
    console.print()
    console.print(_table(report.options, report.chosen))
    console.print()
    console.print(" ".join(sentences(report.chosen, report.goal)), width=min(console.width, 80))
    if report.projector:
        console.print(escape(_sight(report.projector)), soft_wrap=True)
    console.print()
    if report.is_stated:
        console.print("[dim]On such a machine:[/]")
    console.print(f"  {command(report.model, report.chosen)}", soft_wrap=True, markup=False)


def _sight(projector: Projector) -> str:
    tower, image = projector.num_bytes / GIB, projector.image_bytes / GIB
    return (
        f"Room is kept for its vision part, {projector.path.name}: {tower:.1f} GiB and {image:.1f} GiB for the largest "
        "image, among the buffers."
    )


def describe(machine: Machine) -> str:
    """The cards, equal ones together, and the RAM."""
    names = [f"{gpu.name} ({gpu.free_bytes / GIB:.1f} GiB free)" for gpu in machine.gpus]
    cards = [f"{names.count(each)} x {each}" for each in dict.fromkeys(names)]
    if machine.num_unusable_gpus:
        cards.append(f"{machine.num_unusable_gpus} GPU unused (llama.cpp is built without CUDA)")
    return ", ".join([*(cards or ["no GPU"]), f"{machine.ram_free_bytes / GIB:.1f} GiB of RAM free"])


def sentences(chosen: Option, goal: Goal) -> list[str]:
    """Why this row: what it is, where it goes, how fast it will be."""
    plan = chosen.plan
    assert plan is not None, "the chosen option has a plan"
    is_short = plan.n_ctx < min(GOOD_CTX, plan.geometry.shape.n_ctx_train)
    why = {
        Goal.QUALITY: "the largest quant that fits, but a short context" if is_short else _GOOD,
        Goal.CONTEXT: "the longest context",
        Goal.SPEED: "the fastest answers",
    }[goal]
    return [
        f"{chosen.quant} with {chosen.kv_type} KV gives {why}: {plan.n_ctx:,} tokens.",
        _place(plan),
        _speed(plan),
    ]


def _place(plan: Plan) -> str:
    kv = plan.kv_bytes / GIB
    if not plan.shares:
        rest = (plan.ram_bytes - plan.weight_bytes - plan.kv_bytes) / GIB
        return f"It lives in RAM: weights {plan.weight_bytes / GIB:.1f} + KV {kv:.1f} + buffers {rest:.1f} GiB."
    weights = sum(share.weight_bytes for share in plan.shares) / GIB
    others = sum(share.other_bytes for share in plan.shares) / GIB
    how = {
        "none": "On one card",
        "layer": f"Its layers are dealt to {len(plan.shares)} cards",
        "row": f"Its rows are cut across {len(plan.shares)} cards",
        "tensor": f"Its matrices are cut across {len(plan.shares)} cards",
    }[plan.split]
    kv_here = sum(share.kv_bytes for share in plan.shares) / GIB
    sums = f"{how}: weights {weights:.1f} + KV {kv_here:.1f} + buffers {others:.1f} GiB"
    if plan.num_cpu_layers:
        return f"{sums}; {plan.num_cpu_layers} of {len(plan.geometry.layer_bytes)} layers stay on the CPU."
    return f"{sums} of {sum(gpu.free_bytes for gpu in plan.gpus) / GIB:.1f}."


def _speed(plan: Plan) -> str:
    if plan.decode <= 0:
        return "Its speed cannot be estimated: no datasheet of ours has this card."
    slow = " because the CPU takes part" if plan.num_cpu_layers and plan.shares else ""
    return (
        f"Estimate, not a measurement: {plan.decode:.3g} tok/s for one answer{slow}, {plan.decode_full:.3g} when the "
        f"context is full; prompts at about {_rounded(plan.prefill)} tok/s."
    )


def command(model: str, chosen: Option) -> str:
    """What to type for this row; `model` is a catalog name, or a file's path."""
    plan = chosen.plan
    assert plan is not None, "the chosen option has a plan"
    meant = shlex.quote(model) if Path(model).is_file() else f"{model.partition(':')[0]}:{chosen.quant}"
    words = ["mm35 serve", f"--model {meant}", f"--ctx {plan.n_ctx}", f"--kv {plan.kv_type}"]
    if len(plan.shares) > 1:
        words.append(f"--split {plan.split}")
    words += [f"--rpc {gpu.name}" for gpu in plan.gpus if gpu.link and "#" not in gpu.name]
    return " ".join(words)


def _table(options: Sequence[Option], chosen: Option) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "quant", "KV"):
        table.add_column(title, no_wrap=True)
    for title in ("GiB", "context"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("memory, per card", no_wrap=True)
    for title in ("tok/s", "prompt"):
        table.add_column(title, justify="right", no_wrap=True)
    quant = ""
    for option in options:
        mark = "[bold green]>[/]" if option is chosen else " "
        table.add_row(mark, "" if option.quant == quant else option.quant, option.kv_type, *_cells(option))
        quant = option.quant
    return table


def _cells(option: Option) -> tuple[str, ...]:
    plan = option.plan
    if plan is None:
        needed = option.problem.needed_bytes / GIB if option.problem else 0
        return (f"{needed:.1f}", "-", "[dim]does not fit[/]", "-", "-")
    style = "" if option.is_whole else "[yellow]"
    end = "[/]" if style else ""
    speed = f"~{plan.decode:.3g}" if plan.decode else "?"
    prompt = f"~{_rounded(plan.prefill)}" if plan.prefill else "?"
    return (f"{plan.needed_bytes / GIB:.1f}", f"{plan.n_ctx:,}", f"{style}{_bars(plan)}{end}", speed, prompt)


def _bars(plan: Plan) -> str:
    """One bar for the fullest card, as the others are no fuller; RAM has none because it has other guests."""
    if not plan.shares:
        return "in RAM"
    fullest = max(share.num_bytes / gpu.free_bytes for share, gpu in zip(plan.shares, plan.gpus, strict=True))
    filled = round(fullest * _BAR_CELLS)
    bar = _FULL * filled + _EMPTY * (_BAR_CELLS - filled)
    cpu = f" +{plan.num_cpu_layers} on CPU" if plan.num_cpu_layers else ""
    split = f" {len(plan.shares)}x {plan.split}" if len(plan.shares) > 1 and not cpu else ""
    return f"{bar} {min(fullest, 1.0):.0%}{split}{cpu}"


def _rounded(number: float) -> int:
    """To two digits: more would pretend."""
    digits = len(str(int(number)))
    return int(round(number, 2 - digits)) if digits > 2 else round(number)


def to_json(report: Report) -> dict[str, Any]:
    """docs/plan.md has every field."""
    return {
        "model": report.name,
        "fit": str(report.goal),
        "machine": {
            "gpus": [
                {"name": gpu.name, "total_bytes": gpu.total_bytes, "free_bytes": gpu.free_bytes}
                for gpu in report.machine.gpus
            ],
            "ram_free_bytes": report.machine.ram_free_bytes,
        },
        "chosen": report.options.index(report.chosen),
        "reason": sentences(report.chosen, report.goal),
        "command": command(report.model, report.chosen),
        "mmproj": str(report.projector.path) if report.projector else None,
        "vision_bytes": report.projector.needed_bytes if report.projector else 0,
        "options": [_option_json(option) for option in report.options],
    }


def _option_json(option: Option) -> dict[str, Any]:
    plan = option.plan
    head = {"quant": option.quant, "kv": option.kv_type, "fits": plan is not None}
    if plan is None:
        return head | {"needed_bytes": option.problem.needed_bytes if option.problem else None}
    return head | {
        "n_ctx": plan.n_ctx,
        "split": str(plan.split),
        "n_batch": plan.n_batch,
        "n_gpu_layers": plan.n_gpu_layers,
        "num_cpu_layers": min(plan.num_cpu_layers, len(plan.geometry.layer_bytes)),
        "needed_bytes": plan.needed_bytes,
        "weight_bytes": plan.weight_bytes,
        "kv_bytes": plan.kv_bytes,
        "compute_bytes": plan.compute_bytes,
        "ram_bytes": plan.ram_bytes,
        "devices": [
            {
                "name": gpu.name,
                "num_layers": share.num_layers,
                "weight_bytes": share.weight_bytes,
                "kv_bytes": share.kv_bytes,
                "other_bytes": share.other_bytes,
                "free_bytes": gpu.free_bytes,
                "tensor_split": share.split,
            }
            for gpu, share in zip(plan.gpus, plan.shares, strict=True)
        ],
        "estimate": {
            "decode_tokens_per_second": round(plan.decode, 2) or None,
            "decode_full_tokens_per_second": round(plan.decode_full, 2) or None,
            "prefill_tokens_per_second": _rounded(plan.prefill) or None,
        },
    }
