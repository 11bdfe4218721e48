"""Proves finished outputs: layout, hashes, how far each tensor is from the source, and that llama.cpp runs the file.

Invariant: everything is read again from the files under their final names; nothing is believed of the conversion but
the manifest's hashes.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from mm35local.errors import ConversionError, ModelFileError
from mm35local.models.gguf_header import read_header
from quantize.decoder import Decoder
from quantize.gguf_file import digest
from quantize.job import worth_of
from quantize.make import num_cpus
from quantize.manifest import Manifest
from quantize.output import PlannedFile, PlannedOutput
from quantize.report import Report, make_report, read_distances, write_report
from quantize.rows import Block, ShardReader, blocks, read_rows
from quantize.trial import try_file
from quantize.work import OnProgress

_AGAIN = "convert again with --force"
_IN_FLIGHT = 3
"""Blocks per thread."""


def verify(
    decoder: Decoder,
    output: PlannedOutput,
    *,
    is_tried: bool = True,
    num_threads: int = 0,
    on_progress: OnProgress | None = None,
) -> Report:
    """Writes NAME.report.json too. Raises ConversionError naming the file, and the tensor where one is at fault.

    `is_tried`: llama.cpp runs the file, which a projector alone cannot be. Of tensors whose shard was consumed the
    distance is what was measured before that, if it was asked for.
    """
    manifest = output.finished()
    if manifest is None:
        raise ConversionError(
            f"{output.stem}: not finished by this conversion", "run the same command without --verify"
        )
    for file, entry in zip(output.files, manifest.files, strict=True):
        _check_layout(file)
        _check_hashes(output, file, entry.sha256, manifest)
    here = [index for index, tensor in enumerate(decoder.tensors) if tensor.stored.path.is_file()]
    paths = [file.path for file in output.files]
    distances = read_distances(output) | measure(decoder, output, here, paths, num_threads, on_progress)
    report = make_report(output, distances, try_file(output.files[0].path) if is_tried else ())
    write_report(output, report)
    return report


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


def measure(
    decoder: Decoder,
    output: PlannedOutput,
    tensors: Sequence[int],
    paths: Sequence[Path],
    num_threads: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, float]:
    """Relative RMSE of these tensors by name; `paths` are the files of `output`, finished or not."""
    num_threads = num_threads or num_cpus()
    wanted = [(index, decoder.tensors[index]) for index in tensors]
    total_bytes, done_bytes = sum(tensor.stored.num_bytes for _, tensor in wanted), 0
    sums = dict.fromkeys(tensors, (0.0, 0.0))
    with ExitStack() as stack:
        reader = stack.enter_context(ShardReader(list(dict.fromkeys(tensor.stored.path for _, tensor in wanted))))
        fds: list[int] = []
        for path in paths:
            fds.append(os.open(path, os.O_RDONLY))
            stack.callback(os.close, fds[-1])
        pool = stack.enter_context(ThreadPoolExecutor(num_threads, "verify"))
        in_flight: deque[tuple[Block, Future[tuple[float, float]]]] = deque()
        for block in _then_none(blocks(wanted, worth=worth_of(decoder, ((output, i) for i in tensors), num_threads))):
            while in_flight and (block is None or len(in_flight) >= num_threads * _IN_FLIGHT):
                oldest, future = in_flight.popleft()
                error, weight = future.result()
                sums[oldest.index] = (sums[oldest.index][0] + error, sums[oldest.index][1] + weight)
                done_bytes += oldest.num_bytes
                if on_progress:
                    on_progress(done_bytes, total_bytes)
            if block is not None:
                in_flight.append((block, pool.submit(_compare, block, reader, output, fds)))
    return {
        output.tensor_names[index]: math.sqrt(error / weight) if weight else 0.0
        for index, (error, weight) in sums.items()
    }


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
