"""Streams the weights: blocks of rows are read, decoded, permuted, quantised for every output, and written.

Invariant: memory is bounded by the blocks in flight, never by a tensor; each source byte is read once however many
outputs there are. Threads help because reading, writing and ggml's quantisers release the GIL.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mm35local.errors import CheckpointError
from mm35local.native import quant
from quantize.decoder import Decoder, DecoderTensor
from quantize.fp8 import scaled_table
from quantize.kernels import choose
from quantize.kernels.choose import Worth
from quantize.output import Output
from quantize.scales import FP8, BlockScales

_BLOCK_ELEMENTS = 1 << 20
_BLOCKS_PER_THREAD = 3
"""Enough that no thread waits while the oldest block is booked."""


_Encoded = Mapping[int, NDArray[np.uint8]]
"""The bytes of a block, by ggml type."""


@dataclass(frozen=True, slots=True)
class Block:
    index: int
    tensor: DecoderTensor
    table: NDArray[np.float32] | None
    """Decodes FP8, the scale of the whole tensor included."""
    outputs: Sequence[Output]
    """Those that lack this tensor."""
    first_row: int
    num_rows: int
    worth: Worth

    @property
    def is_last(self) -> bool:
        return self.first_row + self.num_rows == self.tensor.num_rows

    @property
    def source_row_bytes(self) -> int:
        return self.tensor.stored.num_bytes // self.tensor.num_rows

    @property
    def num_bytes(self) -> int:
        return self.num_rows * self.source_row_bytes


def peak_bytes(num_threads: int, num_outputs: int) -> int:
    """Memory of the blocks in flight, at most: each thread's decoding (float32, a copy that interleaves heads, and
    64-bit indices of FP8's table lookup, where that is not compiled) and every block's bytes for every output (float32
    at worst) until booked."""
    decoding = _BLOCK_ELEMENTS * (1 + 4 + 4 + 8)
    return num_threads * (decoding + _BLOCKS_PER_THREAD * num_outputs * _BLOCK_ELEMENTS * 4)


class ShardReader:
    """Open shards, for reading at offsets from any thread."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._fds: dict[Path, int] = {}
        try:
            for path in paths:
                self._fds[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from error

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read(self, tensor: DecoderTensor, offset: int, num_bytes: int) -> NDArray[np.uint8]:
        """`num_bytes` of the tensor's stored bytes from `offset` on. Raises CheckpointError."""
        stored, data = tensor.stored, np.empty(num_bytes, np.uint8)
        done = 0
        try:
            while done < num_bytes:
                count = os.preadv(self._fds[stored.path], [data.data[done:]], stored.offset + offset + done)
                if count == 0:
                    raise CheckpointError(str(stored.path), "the file was cut short meanwhile", tensor=stored.name)
                done += count
        except OSError as error:
            raise CheckpointError(str(stored.path), f"cannot be read: {error.strerror}", tensor=stored.name) from error
        return data


@dataclass(slots=True)
class _Booking:
    """Takes finished blocks in order, so that a tensor's SHA-256 is ready with its last block."""

    on_bytes: Callable[[int], None]
    on_tensor: Callable[[int, Mapping[Output, str]], None]
    _hashes: dict[int, hashlib._Hash] = field(default_factory=dict)

    def book(self, block: Block, encoded: _Encoded) -> None:
        for kind, data in encoded.items():
            self._hashes.setdefault(kind, hashlib.sha256()).update(data.data)
        if block.is_last:
            digests = {output: self._hashes[output.plan.types[block.index]].hexdigest() for output in block.outputs}
            self._hashes = {}
            self.on_tensor(block.index, digests)
        self.on_bytes(block.num_bytes)


def stream_rows(
    decoder: Decoder,
    outputs: Sequence[Output],
    num_threads: int,
    on_bytes: Callable[[int], None],
    on_tensor: Callable[[int, Mapping[Output, str]], None],
    shard: Path | None = None,
    worth: Worth | None = None,
) -> None:
    """Write every tensor that an output lacks, or only those of one shard; machine code is compiled for what is `worth`
    it.

    `on_bytes` gets the source bytes of each finished block, in order; `on_tensor` gets the number of a tensor that is
    wholly written and its SHA-256 in each output. Raises CheckpointError or ConversionError; blocks still running are
    waited for, waiting ones dropped.
    """
    missing = [
        (index, tensor)
        for index, tensor in enumerate(decoder.tensors)
        if shard in (None, tensor.stored.path) and any(output.needs(index) for output in outputs)
    ]
    booking = _Booking(on_bytes, on_tensor)
    paths = list(dict.fromkeys(tensor.stored.path for _, tensor in missing))
    with ShardReader(paths) as reader, ThreadPoolExecutor(num_threads, "quantize") as pool:
        in_flight: deque[tuple[Block, Future[_Encoded]]] = deque()
        try:
            for block in blocks(missing, outputs, worth):
                if len(in_flight) >= num_threads * _BLOCKS_PER_THREAD:
                    _finish_oldest(in_flight, booking)
                in_flight.append((block, pool.submit(_convert, block, reader)))
            while in_flight:
                _finish_oldest(in_flight, booking)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finish_oldest(in_flight: deque[tuple[Block, Future[_Encoded]]], booking: _Booking) -> None:
    block, future = in_flight.popleft()
    booking.book(block, future.result())


def blocks(
    tensors: Sequence[tuple[int, DecoderTensor]], outputs: Sequence[Output] = (), worth: Worth | None = None
) -> Iterator[Block]:
    """Tensors in the order they lie on disk; blocks of permuted ones hold whole heads."""
    for index, tensor in sorted(tensors, key=lambda item: (item[1].stored.path, item[1].stored.offset)):
        table = _table(tensor) if tensor.stored.dtype == FP8 else None
        lacking = [output for output in outputs if output.needs(index)]
        step = max(1, _BLOCK_ELEMENTS // tensor.row_length)
        if tensor.num_heads:
            head_dim = tensor.num_rows // tensor.num_heads
            step = max(head_dim, step // head_dim * head_dim)
        for first_row in range(0, tensor.num_rows, step):
            num_rows = min(step, tensor.num_rows - first_row)
            yield Block(index, tensor, table, lacking, first_row, num_rows, worth or Worth())


def _table(tensor: DecoderTensor) -> NDArray[np.float32]:
    return scaled_table(1.0 if isinstance(tensor.scale, BlockScales) else tensor.scale)


def read_rows(block: Block, reader: ShardReader) -> NDArray[np.float32]:
    """[num_rows, row_length] float32, heads interleaved where llama.cpp wants it. Raises CheckpointError."""
    tensor = block.tensor
    raw = reader.read(tensor, block.first_row * block.source_row_bytes, block.num_bytes)
    if block.table is not None:
        numbers = choose.decode(block.table, raw, is_compiled=block.worth.is_decoding)
    else:
        numbers = decode(raw, tensor.stored.dtype)
    rows = numbers.reshape(block.num_rows, tensor.row_length)
    if isinstance(tensor.scale, BlockScales):
        tensor.scale.apply(rows, block.first_row)
    if not np.isfinite(rows).all():
        raise CheckpointError(str(tensor.stored.path), "it holds NaN or infinite weights", tensor=tensor.stored.name)
    if tensor.num_heads:
        rows = interleave_heads(rows, tensor.num_rows // tensor.num_heads)
    return rows


def _convert(block: Block, reader: ShardReader) -> _Encoded:
    tensor, rows = block.tensor, read_rows(block, reader)
    encoded: dict[int, NDArray[np.uint8]] = {}
    for output in block.outputs:
        kind = output.plan.types[block.index]
        if kind not in encoded:
            encode = choose.quantize_rows if kind in block.worth.types else quant.quantize_rows
            encoded[kind] = encode(kind, rows, output.plan.importance(block.index))
        output.write(block.index, block.first_row * quant.row_bytes(kind, tensor.row_length), encoded[kind].data)
    return encoded


def decode(raw: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """Stored bytes of all but FP8 → float32, exact."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f2" if dtype == "F16" else "<f4").astype(np.float32, copy=False)


def interleave_heads(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Half-split rope rows → interleaved, head by head.

    Within a head of d rows, row i of the first half and row i of the second turn together:
    (0, 1, …, d/2-1 | d/2, …, d-1)  →  (0, d/2, 1, d/2+1, …)
    """
    num_rows, row_length = rows.shape
    halves = rows.reshape(num_rows // head_dim, 2, head_dim // 2, row_length)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(num_rows, row_length)
