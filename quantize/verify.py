"""Proves finished outputs: layout, hashes, how far each tensor is from the source, and that llama.cpp runs the file.

Invariant: everything is read again from the files under their final names; nothing is believed of the conversion but
the manifest's hashes.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from mm35local.errors import ConversionError, ModelFileError
from mm35local.models.gguf_header import read_header
from quantize.decoder import Decoder
from quantize.durable import write_aside
from quantize.gguf_file import digest
from quantize.make import OnProgress, num_cpus
from quantize.manifest import Manifest
from quantize.output import PlannedFile, PlannedOutput
from quantize.rows import Block, ShardReader, blocks, read_rows
from quantize.trial import try_file

_AGAIN = "convert again with --force"
_IN_FLIGHT = 3
"""Blocks per thread."""


@dataclass(frozen=True, slots=True)
class TensorReport:
    name: str
    type_name: str
    relative_rmse: float
    """sqrt(sum (w' - w)^2 / sum w^2) over the tensor; 0 where it is stored exactly."""


@dataclass(frozen=True, slots=True)
class Report:
    quant: str
    files: tuple[str, ...]
    tensors: tuple[TensorReport, ...]
    generated: tuple[int, ...]
    """Token ids that llama.cpp gave after a short prompt."""

    def worst(self, num: int = 10) -> list[TensorReport]:
        return sorted(self.tensors, key=lambda tensor: -tensor.relative_rmse)[:num]


def verify(
    decoder: Decoder, output: PlannedOutput, *, num_threads: int = 0, on_progress: OnProgress | None = None
) -> Report:
    """Writes NAME.report.json too. Raises ConversionError naming the file, and the tensor where one is at fault."""
    manifest = output.finished()
    if manifest is None:
        raise ConversionError(
            f"{output.stem}: not finished by this conversion", "run the same command without --verify"
        )
    for file, entry in zip(output.files, manifest.files, strict=True):
        _check_layout(file)
        _check_hashes(output, file, entry.sha256, manifest)
    squares = _measure(decoder, output, num_threads or num_cpus(), on_progress or (lambda done, total: None))
    tensors = tuple(
        TensorReport(name, GGMLQuantizationType(kind).name, math.sqrt(error / weight) if weight else 0.0)
        for name, kind, (error, weight) in zip(output.tensor_names, output.types, squares, strict=True)
    )
    report = Report(
        output.quant, tuple(file.path.name for file in output.files), tensors, try_file(output.files[0].path)
    )
    write_aside(report_path(output), json.dumps(asdict(report), indent=2).encode() + b"\n")
    return report


def report_path(output: PlannedOutput) -> Path:
    return output.stem.with_name(output.stem.name + ".report.json")


def _check_layout(file: PlannedFile) -> None:
    try:
        header = read_header(file.path)
    except ModelFileError as error:
        raise ConversionError(str(error), _AGAIN) from error
    offsets = tuple(header.data_offset + tensor.offset for tensor in header.tensors)
    sizes = tuple(tensor.num_bytes for tensor in header.tensors)
    if (offsets, sizes) != (file.layout.offsets, file.layout.sizes):
        raise ConversionError(f"{file.path}: tensors lie elsewhere than planned", _AGAIN)


def _check_hashes(output: PlannedOutput, file: PlannedFile, sha256: str, manifest: Manifest) -> None:
    fd = os.open(file.path, os.O_RDONLY)
    try:
        whole, tensors = digest(fd, file.layout, file.path)
    finally:
        os.close(fd)
    names = output.tensor_names[file.first_tensor :][: len(tensors)]
    for name, found in zip(names, tensors, strict=True):
        if found != manifest.tensors[name]:
            raise ConversionError(f"{file.path}, tensor {name}: SHA-256 {found}, the manifest says otherwise", _AGAIN)
    if whole != sha256:
        raise ConversionError(f"{file.path}: SHA-256 {whole}, the manifest says {sha256}", _AGAIN)


def _measure(
    decoder: Decoder, output: PlannedOutput, num_threads: int, on_progress: OnProgress
) -> list[tuple[float, float]]:
    """(sum of squared errors, sum of squared weights) of each tensor."""
    sums = [(0.0, 0.0)] * len(decoder.tensors)
    done_bytes = 0
    paths = list(dict.fromkeys(tensor.stored.path for tensor in decoder.tensors))
    with ExitStack() as stack:
        reader = stack.enter_context(ShardReader(paths))
        fds: list[int] = []
        for file in output.files:
            fds.append(os.open(file.path, os.O_RDONLY))
            stack.callback(os.close, fds[-1])
        pool = stack.enter_context(ThreadPoolExecutor(num_threads, "verify"))
        in_flight: deque[tuple[Block, Future[tuple[float, float]]]] = deque()
        for block in _then_none(blocks(list(enumerate(decoder.tensors)))):
            while in_flight and (block is None or len(in_flight) >= num_threads * _IN_FLIGHT):
                oldest, future = in_flight.popleft()
                error, weight = future.result()
                sums[oldest.index] = (sums[oldest.index][0] + error, sums[oldest.index][1] + weight)
                done_bytes += oldest.num_bytes
                on_progress(done_bytes, decoder.source_bytes)
            if block is not None:
                in_flight.append((block, pool.submit(_compare, block, reader, output, fds)))
    return sums


def _then_none(found: Iterator[Block]) -> Iterator[Block | None]:
    yield from found
    yield None


def _compare(block: Block, reader: ShardReader, output: PlannedOutput, fds: Sequence[int]) -> tuple[float, float]:
    rows = read_rows(block, reader)
    part, offset, row_bytes = output.place(block.index, block.first_row, block.tensor.num_rows)
    raw = np.frombuffer(os.pread(fds[part], block.num_rows * row_bytes, offset), np.uint8)
    found = dequantize(raw.reshape(block.num_rows, row_bytes), GGMLQuantizationType(output.types[block.index]))
    difference = (found.reshape(rows.shape).astype(np.float32) - rows).astype(np.float64)
    return float(np.square(difference).sum()), float(np.square(rows, dtype=np.float64).sum())
