"""What a conversion will take, told before it starts: bytes of each output, disk, memory and time.

Time is measured, not assumed: ggml quantises a block of each type that the plan uses, on one core of this machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mm35local.native import quant
from quantize.decoder import Decoder
from quantize.make import check_space, existing_folder, num_cpus
from quantize.output import PlannedOutput
from quantize.rows import peak_bytes

_SAMPLE_ROWS, _SAMPLE_LENGTH = 64, 4096


@dataclass(frozen=True, slots=True)
class Estimate:
    needed_bytes: int
    """Of disk, less what an earlier run of the same conversion has written."""
    free_bytes: int
    peak_bytes: int
    """Of memory, for the blocks in flight; libraries and headers come to some 200 MiB more."""
    seconds: float
    num_threads: int


def estimate(decoder: Decoder, outputs: Sequence[PlannedOutput], num_threads: int = 0) -> Estimate:
    """Raises ConversionError if the disk has too little room."""
    folder = existing_folder(outputs[0].stem.parent)
    needed_bytes = sum(output.missing_bytes() for output in outputs)
    check_space(folder, needed_bytes)
    num_threads = num_threads or num_cpus()
    return Estimate(
        needed_bytes,
        shutil.disk_usage(folder).free,
        peak_bytes(num_threads, len(outputs)),
        _core_seconds(decoder, outputs) / num_threads,
        num_threads,
    )


def together(parts: Sequence[Estimate], folder: Path) -> Estimate:
    """Of conversions into `folder`, one after another. Raises ConversionError if all of them have too little room."""
    needed_bytes = sum(part.needed_bytes for part in parts)
    check_space(existing_folder(folder), needed_bytes)
    return replace(
        parts[0],
        needed_bytes=needed_bytes,
        peak_bytes=max(part.peak_bytes for part in parts),
        seconds=sum(part.seconds for part in parts),
    )


def _core_seconds(decoder: Decoder, outputs: Sequence[PlannedOutput]) -> float:
    speeds: dict[int, float] = {}
    seconds = 0.0
    for index, tensor in enumerate(decoder.tensors):
        for kind in {output.types[index] for output in outputs}:
            if kind not in speeds:
                speeds[kind] = _elements_per_second(kind)
            seconds += tensor.num_rows * tensor.row_length / speeds[kind]
    return seconds


def _elements_per_second(ggml_type: int) -> float:
    rows = np.random.default_rng(0).standard_normal((_SAMPLE_ROWS, _SAMPLE_LENGTH), np.float32)
    importance = np.ones(_SAMPLE_LENGTH, np.float32)
    quant.quantize_rows(ggml_type, rows[:1], importance)
    begin = time.perf_counter()
    quant.quantize_rows(ggml_type, rows, importance)
    return rows.size / (time.perf_counter() - begin)
