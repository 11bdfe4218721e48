"""Converts a checkpoint and consumes it, as `mm35 quantize --consume` does; a process may be told where to die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from quantize import consume
from quantize.consume import ShardSupply
from quantize.convert import Options
from quantize.make import ConvertedFile, make
from quantize.plan import plan_everything
from quantize.source import Source

QUANTS = ("Q4_K_M", "Q8_0")


def convert_and_consume(
    source: Source | Path,
    out: Path,
    quants: Sequence[str] = QUANTS,
    *,
    mmproj: str | None = "F16",
    is_proof: bool = False,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> tuple[ConvertedFile, ...]:
    source = source if isinstance(source, Source) else Source(source)
    plan = plan_everything(source.folder, out, quants, mmproj, Options())
    supply = ShardSupply(source, plan.jobs, is_consuming=True, is_proof=is_proof, num_threads=2, on_warning=on_warning)
    return make(plan.jobs, supply, force=force, num_threads=2, on_progress=on_progress)


def convert_and_keep(source: Path, out: Path, quants: Sequence[str] = QUANTS, mmproj: str | None = "F16") -> None:
    make(plan_everything(source, out, quants, mmproj, Options()).jobs, num_threads=2)


def die_at(source: Path, out: Path, moment: str, number: int) -> None:
    """SIGKILL before or after the `number`th call of a step, or when `number` per cent of the source are done."""

    def die(*ignored: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "per cent":
        convert_and_consume(
            source, out, on_progress=lambda done, total: die() if 100 * done >= number * total else None
        )
        return
    when, _, name = moment.partition(" ")
    owner = ShardSupply if name == "_delete" else consume
    step, calls = getattr(owner, name), 0

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            die()
        result = step(*arguments)
        if calls == number:
            die()
        return result

    setattr(owner, name, counted)
    convert_and_consume(source, out)
