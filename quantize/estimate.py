"""What a conversion will take, told before it starts: bytes of each output, disk, memory and time.

Time is measured, not assumed: a block of each type that the plan uses is quantised, on one core of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mm35local.native import quant
from quantize.disk import Need, disk_needs
from quantize.job import Job, worth_of
from quantize.kernels import choose
from quantize.make import num_cpus
from quantize.rows import peak_bytes
from quantize.supply import Supply

_SAMPLE_ROWS, _SAMPLE_LENGTH = 64, 4096


@dataclass(frozen=True, slots=True)
class Estimate:
    disk: tuple[Need, ...]
    """For each file system, less what an earlier run of the same conversion has written."""
    consuming: tuple[Need, ...]
    """With --consume; empty where the source must not be deleted."""
    peak_bytes: int
    """Of memory, for the blocks in flight; libraries and headers come to some 200 MiB more."""
    seconds: float
    num_threads: int


def estimate(
    jobs: Sequence[Job],
    folder: Path,
    supply: Supply | None = None,
    consuming: Supply | None = None,
    num_threads: int = 0,
) -> Estimate:
    """Of converting `jobs` into `folder`, with shards out of `supply` if there is one; or else with `consuming`."""
    num_threads = num_threads or num_cpus()
    return Estimate(
        disk_needs(jobs, folder, supply) if supply else (Need(folder, _missing_bytes(jobs)),),
        disk_needs(jobs, folder, consuming) if consuming else (),
        max(peak_bytes(num_threads, len(job.outputs)) for job in jobs),
        sum(_core_seconds(job, num_threads) for job in jobs) / num_threads,
        num_threads,
    )


def _missing_bytes(jobs: Sequence[Job]) -> int:
    return sum(output.missing_bytes() for job in jobs for output in job.outputs)


def _core_seconds(job: Job, num_threads: int) -> float:
    """Machine code is compiled where the conversion would compile it: a short one is planned without."""
    speeds: dict[tuple[int, bool], float] = {}
    seconds = 0.0
    pairs = [(output, index) for output in job.outputs for index in range(len(output.types))]
    compiled = worth_of(job.decoder, pairs, num_threads).types
    for index, tensor in enumerate(job.decoder.tensors):
        for kind in {(output.types[index], output.importance(index) is not None) for output in job.outputs}:
            if kind not in speeds:
                speeds[kind] = _elements_per_second(*kind, is_compiled=kind[0] in compiled)
            seconds += tensor.num_rows * tensor.row_length / speeds[kind]
    return seconds


def _elements_per_second(ggml_type: int, is_weighed: bool, *, is_compiled: bool) -> float:
    quantize_rows = choose.quantize_rows if is_compiled else quant.quantize_rows
    rows = np.random.default_rng(0).standard_normal((_SAMPLE_ROWS, _SAMPLE_LENGTH), np.float32)
    importance = np.ones(_SAMPLE_LENGTH, np.float32) if is_weighed else None
    quantize_rows(ggml_type, rows[:1], importance)
    begin = time.perf_counter()
    quantize_rows(ggml_type, rows, importance)
    return rows.size / (time.perf_counter() - begin)
