"""`mm35 quantize --plan` and `--verify`: what a conversion would take, and what it made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mm35local.cli.console import byte_progress
from mm35local.errors import GIB, UsageError

if TYPE_CHECKING:
    from quantize.consume import Consumer
    from quantize.estimate import Estimate
    from quantize.plan import Plan
    from quantize.source import Source


def show_plan(plan: Plan, folder: Path, source: Source, is_consuming: bool, num_threads: int, as_json: bool) -> None:
    """Raises what the conversion would raise before its first byte, too little disk included."""
    from quantize.disk import Need, check_space
    from quantize.estimate import estimate

    try:
        supply = consumer(source, plan)
    except UsageError:
        if is_consuming:
            raise
        supply = None
    needs = estimate(plan.jobs, folder, supply, num_threads)
    _print_json(plan, needs) if as_json else _print_plan(plan, needs)
    check_space(needs.consuming if is_consuming else [Need(folder, needs.needed_bytes)])


def _print_json(plan: Plan, needs: Estimate) -> None:
    facts = {
        "files": [{"path": str(path), "bytes": num_bytes} for path, num_bytes in _files(plan)],
        "source_bytes": _source_bytes(plan),
        "needed_bytes": needs.needed_bytes,
        "needed_bytes_consuming": needs.consuming_bytes if needs.consuming else None,
        "free_bytes": needs.free_bytes,
        "peak_bytes": needs.peak_bytes,
        "seconds": round(needs.seconds, 1),
    }
    print(json.dumps(facts, indent=2))


def _print_plan(plan: Plan, needs: Estimate) -> None:
    for path, num_bytes in _files(plan):
        print(f"{path}  {num_bytes / GIB:.2f} GiB")
    print(f"disk: {needs.needed_bytes / GIB:.1f} GiB needed, {needs.free_bytes / GIB:.1f} GiB free")
    for need in needs.consuming:
        print(
            f"disk with --consume: {need.num_bytes / GIB:.1f} GiB needed at the worst moment, "
            f"{need.available_bytes / GIB:.1f} GiB free ({need.folder})"
        )
    print(f"memory: {needs.peak_bytes / GIB:.2f} GiB for blocks in flight on {needs.num_threads} cores")
    print(f"time: {needs.seconds / 60:.1f} minutes if the disk keeps up")


def _files(plan: Plan) -> list[tuple[Path, int]]:
    return [(file.path, file.layout.num_bytes) for output in plan.outputs for file in output.files]


def _source_bytes(plan: Plan) -> int:
    return sum(job.decoder.source_bytes for job in plan.jobs)


def consumer(
    source: Source,
    plan: Plan,
    is_proof: bool = False,
    num_threads: int = 0,
    on_warning: Callable[[str], None] | None = None,
) -> Consumer:
    """Raises UsageError for a source that --consume must not touch."""
    from quantize.consume import Consumer

    if plan.num_skipped and on_warning:
        on_warning(
            f"{plan.num_skipped} tensors of the vision tower go with their shards: add --mmproj f16 to convert them too"
        )
    return Consumer(source, plan.jobs, is_proof=is_proof, num_threads=num_threads, on_warning=on_warning)


def prove(plan: Plan, num_threads: int) -> None:
    """Verify every output; the worst ten tensors of each go to stderr, all into NAME.report.json."""
    from quantize.report import report_path
    from quantize.verify import verify

    for job in plan.jobs:
        is_model = job is plan.text
        for output in job.outputs:
            with byte_progress(f"verifying {output.stem.name}") as progress:
                report = verify(job.decoder, output, is_tried=is_model, num_threads=num_threads, on_progress=progress)
            found = "hashes hold, llama.cpp runs it" if is_model else "hashes hold"
            print(f"{output.stem.name}: {found}; {report_path(output)}; worst ten:", file=sys.stderr)
            if report.num_unmeasured:
                print(
                    f"  of {report.num_unmeasured} tensors the distance is unknown: consumed without --verify",
                    file=sys.stderr,
                )
            for distance, tensor in report.worst():
                print(f"  {distance:.5f}  {tensor.type_name:8}{tensor.name}", file=sys.stderr)
