"""One GGUF being written: its header, then rows in any order from any thread.

Invariant: the final name appears only with the whole file behind it, fsynced; until then everything is in
NAME.partial, whose header never changes, so that what stands in it can be gone on with.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.gguf_writer import WriterState

from mm35local.errors import ConversionError
from quantize.durable import disk_errors, partial_path, sync_folder
from quantize.metadata import Metadata

_READ_BYTES = 1 << 22
_STAT_BLOCK_BYTES = 512
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """`shape` as in the checkpoint: (rows, row length) or (length,)."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    row_bytes: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True, slots=True)
class GgufLayout:
    """The finished header and where each tensor's data starts in the file."""

    header: bytes
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    """Bytes of each tensor, without padding."""
    num_bytes: int


class _MemoryWriter(GGUFWriter):  # type: ignore[misc]
    """gguf-py's writer with its header kept in memory instead of a file."""

    def open_output_file(self, path: Path | None = None) -> None:
        self.fout = [io.BytesIO()]
        self.state = WriterState.EMPTY


@dataclass(frozen=True, slots=True)
class SplitPart:
    """Which of several files this one is, in llama.cpp's own keys."""

    number: int
    count: int
    num_tensors: int
    """Of all files together."""


def lay_out(
    architecture: str, metadata: Metadata, tensors: Sequence[TensorSpec], split: SplitPart | None = None
) -> GgufLayout:
    """Render the header and place the tensors in the given order, each aligned to 32 bytes."""
    writer = _MemoryWriter(None, architecture)
    _add_metadata(writer, metadata)
    if split is not None:
        writer.add_uint16("split.no", split.number)
        writer.add_uint16("split.count", split.count)
        writer.add_int32("split.tensors.count", split.num_tensors)
    for tensor in tensors:
        kind = GGMLQuantizationType(tensor.ggml_type)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    header: bytes = writer.fout[0].getvalue()
    offsets, at = [], _aligned(len(header))
    for tensor in tensors:
        offsets.append(at)
        at += _aligned(tensor.num_bytes)
    return GgufLayout(header, tuple(offsets), tuple(tensor.num_bytes for tensor in tensors), at)


def _add_metadata(writer: GGUFWriter, metadata: Metadata) -> None:
    for key, value in metadata.items():
        if isinstance(value, np.uint16 | np.int32):
            kind = GGUFValueType.UINT16 if isinstance(value, np.uint16) else GGUFValueType.INT32
            writer.add_key_value(key, int(value), kind)
            continue
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


class GgufFile:
    """PATH.partial: written at offsets from any thread, synced, checked, and at last given its name."""

    def __init__(self, path: Path, layout: GgufLayout) -> None:
        self.path = path
        self.layout = layout
        self._partial = partial_path(path)
        with disk_errors(path):
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @property
    def is_begun(self) -> bool:
        """Does it have the size and the header that `begin` gave it?"""
        size = os.fstat(self._fd).st_size
        return size == self.layout.num_bytes and os.pread(self._fd, len(self.layout.header), 0) == self.layout.header

    @property
    def missing_bytes(self) -> int:
        """Of the disk, until the file is whole: what is written already does not count."""
        return max(0, self.layout.num_bytes - os.fstat(self._fd).st_blocks * _STAT_BLOCK_BYTES)

    def begin(self) -> None:
        """Empty it, give it its whole length (sparse) and the header."""
        with disk_errors(self.path):
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, self.layout.num_bytes)
        self._pwrite(memoryview(self.layout.header), 0)

    def write(self, tensor: int, offset: int, data: memoryview) -> None:
        """Bytes of tensor number `tensor`, from `offset` within it; thread-safe."""
        self._pwrite(data, self.layout.offsets[tensor] + offset)

    def sync(self) -> None:
        with disk_errors(self.path):
            os.fsync(self._fd)

    def digest(self, stop: Event | None = None) -> tuple[str, list[str]]:
        """See `digest`; nothing comes from the page cache where the system can drop it."""
        return digest(self._fd, self.layout, self._partial, stop)

    def publish(self) -> None:
        """Give it its final name, replacing an older file."""
        with disk_errors(self.path):
            os.replace(self._partial, self.path)
            sync_folder(self.path.parent)

    def discard(self) -> None:
        self._partial.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._fd)

    def _pwrite(self, data: memoryview, offset: int) -> None:
        with disk_errors(self.path):
            while data:
                written = os.pwrite(self._fd, data, offset)
                data, offset = data[written:], offset + written


def digest(fd: int, layout: GgufLayout, path: Path, stop: Event | None = None) -> tuple[str, list[str]]:
    """SHA-256 of a whole file and of each of its tensors, read from the disk in one pass; hashed in two threads.

    Raises ConversionError, or CancelledError when `stop` is set.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    whole, tensors, at = hashlib.sha256(), [], 0
    with ThreadPoolExecutor(1, "hash") as beside:
        for offset, num_bytes in zip(layout.offsets, layout.sizes, strict=True):
            for data in _read(fd, path, at, offset, stop):
                whole.update(data)
            tensor = hashlib.sha256()
            for data in _read(fd, path, offset, offset + num_bytes, stop):
                half = beside.submit(tensor.update, data)
                whole.update(data)
                half.result()
            tensors.append(tensor.hexdigest())
            at = offset + num_bytes
        for data in _read(fd, path, at, layout.num_bytes, stop):
            whole.update(data)
    return whole.hexdigest(), tensors


def digest_tensors(
    fd: int, layout: GgufLayout, path: Path, tensors: Sequence[int], stop: Event | None = None
) -> list[str]:
    """SHA-256 of these tensors of a file, read from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    digests = []
    for tensor in tensors:
        one = hashlib.sha256()
        begin = layout.offsets[tensor]
        for data in _read(fd, path, begin, begin + layout.sizes[tensor], stop):
            one.update(data)
        digests.append(one.hexdigest())
    return digests


def _read(fd: int, path: Path, begin: int, end: int, stop: Event | None) -> Iterator[bytes]:
    while begin < end:
        if stop is not None and stop.is_set():
            raise CancelledError
        data = os.pread(fd, min(_READ_BYTES, end - begin), begin)
        if not data:
            raise ConversionError(f"{path} was cut short meanwhile", "give the same command again")
        yield data
        begin += len(data)
