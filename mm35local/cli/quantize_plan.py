"""`mm35 quantize --plan` and `--verify`: what a conversion would take, and what it made."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mm35local.cli.console import byte_progress
from mm35local.errors import GIB

if TYPE_CHECKING:
    from quantize.convert import Options
    from quantize.decoder import Decoder
    from quantize.output import PlannedOutput


def show_plan(
    checkpoint: Path,
    folder: Path,
    quants: Sequence[str],
    mmproj: str | None,
    options: Options,
    num_threads: int,
    as_json: bool,
) -> None:
    """Raises what the conversion would raise before its first byte, too little disk included."""
    from quantize.estimate import estimate, together

    jobs = _jobs(checkpoint, folder, quants, mmproj, options)
    needs = together([estimate(decoder, outputs, num_threads) for decoder, outputs in jobs], folder)
    files = [(file.path, file.layout.num_bytes) for _, outputs in jobs for output in outputs for file in output.files]
    source_bytes = sum(decoder.source_bytes for decoder, _ in jobs)
    if as_json:
        facts = {
            "files": [{"path": str(path), "bytes": num_bytes} for path, num_bytes in files],
            "source_bytes": source_bytes,
            "needed_bytes": needs.needed_bytes,
            "free_bytes": needs.free_bytes,
            "peak_bytes": needs.peak_bytes,
            "seconds": round(needs.seconds, 1),
        }
        print(json.dumps(facts, indent=2))
        return
    for path, num_bytes in files:
        print(f"{path}  {num_bytes / GIB:.2f} GiB")
    print(f"disk: {needs.needed_bytes / GIB:.1f} GiB needed, {needs.free_bytes / GIB:.1f} GiB free")
    print(f"memory: {needs.peak_bytes / GIB:.2f} GiB for blocks in flight on {needs.num_threads} cores")
    print(f"time: {needs.seconds / 60:.1f} minutes if the disk keeps up")


def _jobs(
    checkpoint: Path, folder: Path, quants: Sequence[str], mmproj: str | None, options: Options
) -> list[tuple[Decoder, Sequence[PlannedOutput]]]:
    """(what is read, what is written), first the vision part; warnings go to stderr."""
    from quantize.checkpoint import open_checkpoint
    from quantize.convert import plan_conversion
    from quantize.vision import plan_mmproj

    jobs: list[tuple[Decoder, Sequence[PlannedOutput]]] = []
    if mmproj:
        projector, tensors = plan_mmproj(open_checkpoint(checkpoint), folder, mmproj)
        jobs.append((tensors, (projector,)))
    if quants or not mmproj:
        plan = plan_conversion(checkpoint, folder, quants, options)
        for warning in plan.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        jobs.append((plan.decoder, plan.outputs))
    return jobs


def prove(checkpoint: Path, folder: Path, quants: Sequence[str], options: Options, num_threads: int) -> None:
    """Verify every output; the worst ten tensors of each go to stderr, all into NAME.report.json."""
    from quantize.convert import plan_conversion
    from quantize.verify import report_path, verify

    plan = plan_conversion(checkpoint, folder, quants, options)
    for output in plan.outputs:
        with byte_progress(f"verifying {output.quant}") as progress:
            report = verify(plan.decoder, output, num_threads=num_threads, on_progress=progress)
        print(f"{output.quant}: hashes hold, llama.cpp runs it; {report_path(output)}; worst ten:", file=sys.stderr)
        for tensor in report.worst():
            print(f"  {tensor.relative_rmse:.5f}  {tensor.type_name:8}{tensor.name}", file=sys.stderr)
