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
    from quantize.consume import ShardSupply
    from quantize.estimate import Estimate
    from quantize.plan import Plan
    from quantize.source import Source


def show_plan(plan: Plan, folder: Path, source: Source, is_consuming: bool, num_threads: int, as_json: bool) -> None:
    """Raises what the conversion would raise before its first byte, too little disk included."""
    from quantize.disk import check_space
    from quantize.estimate import estimate

    try:
        consuming = supply_of(source, plan, is_consuming=True)
    except UsageError:
        if is_consuming:
            raise
        consuming = None
    needs = estimate(plan.jobs, folder, supply_of(source, plan), consuming, num_threads)
    if as_json:
        _print_json(plan, needs)
    else:
        _print_plan(plan, needs)
    check_space(needs.consuming if is_consuming else needs.disk)


def _print_json(plan: Plan, needs: Estimate) -> None:
    facts = {
        "files": [{"path": str(path), "bytes": num_bytes} for path, num_bytes in _files(plan)],
        "source_bytes": sum(job.decoder.source_bytes for job in plan.jobs),
        "needed_bytes": sum(need.num_bytes for need in needs.disk),
        "needed_bytes_consuming": sum(need.num_bytes for need in needs.consuming) if needs.consuming else None,
        "free_bytes": needs.disk[0].available_bytes,
        "peak_bytes": needs.peak_bytes,
        "seconds": round(needs.seconds, 1),
    }
    print(json.dumps(facts, indent=2))


def _print_plan(plan: Plan, needs: Estimate) -> None:
    for path, num_bytes in _files(plan):
        print(f"{path}  {num_bytes / GIB:.2f} GiB")
    for title, parts in (("disk", needs.disk), ("disk with --consume, at most", needs.consuming)):
        for need in parts:
            where = f" ({need.folder})" if len(parts) > 1 else ""
            print(f"{title}: {need.num_bytes / GIB:.1f} GiB needed, {need.available_bytes / GIB:.1f} GiB free{where}")
    print(f"memory: {needs.peak_bytes / GIB:.2f} GiB for blocks in flight on {needs.num_threads} cores")
    print(f"time: {needs.seconds / 60:.1f} minutes if the disk keeps up")


def _files(plan: Plan) -> list[tuple[Path, int]]:
    return [(file.path, file.layout.num_bytes) for output in plan.outputs for file in output.files]


def supply_of(
    source: Source,
    plan: Plan,
    *,
    is_consuming: bool = False,
    is_proof: bool = False,
    num_threads: int = 0,
    on_warning: Callable[[str], None] = lambda text: None,
) -> ShardSupply | None:
    """None for a folder that is kept. Raises UsageError for a source that --consume must not touch."""
    from quantize.consume import ShardSupply

    if not is_consuming and not source.repo:
        return None
    if is_consuming and plan.num_skipped:
        on_warning(f"{plan.num_skipped} tensors of the vision tower go with their shards; --mmproj f16 converts them")
    return ShardSupply(
        source,
        plan.jobs,
        is_consuming=is_consuming,
        is_proof=is_proof,
        num_threads=num_threads,
        on_warning=on_warning,
    )


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
