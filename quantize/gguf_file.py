"""One GGUF being written: its header, then rows in any order from any thread.

Invariant: the final name appears only with the whole file behind it, fsynced; until then everything is in
NAME.partial, and whatever goes wrong removes that.
"""

from __future__ import annotations

import fcntl
import io
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.gguf_writer import WriterState

from mm35local.errors import ConversionError
from quantize.metadata import Metadata

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
    num_bytes: int
    data_bytes: int
    """Of the tensors alone, without header and padding."""


class _MemoryWriter(GGUFWriter):  # type: ignore[misc]
    """gguf-py's writer with its header kept in memory instead of a file."""

    def open_output_file(self, path: Path | None = None) -> None:
        self.fout = [io.BytesIO()]
        self.state = WriterState.EMPTY


def lay_out(architecture: str, metadata: Metadata, tensors: Sequence[TensorSpec]) -> GgufLayout:
    """Render the header and place the tensors in the given order, each aligned to 32 bytes."""
    writer = _MemoryWriter(None, architecture)
    _add_metadata(writer, metadata)
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
    return GgufLayout(header, tuple(offsets), at, sum(tensor.num_bytes for tensor in tensors))


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


class _State(Enum):
    WRITING = auto()
    COMMITTED = auto()
    DISCARDED = auto()


class GgufFile:
    """A context manager: leaving it without `commit` removes the partial file."""

    def __init__(self, path: Path, layout: GgufLayout) -> None:
        """Create PATH.partial with the header in it. Raises ConversionError if it cannot or is being written."""
        self.path = path
        self.layout = layout
        self._partial = path.with_name(path.name + ".partial")
        self._state = _State.WRITING
        self._lock = Lock()
        self._written_bytes = 0
        try:
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._failure(error) from error
        with ExitStack() as undo:
            undo.callback(os.close, self._fd)
            self._start()
            undo.pop_all()

    def write(self, tensor: int, offset: int, data: memoryview) -> None:
        """Bytes of tensor number `tensor`, from `offset` within it; thread-safe, each byte once."""
        assert self._state is _State.WRITING
        self._pwrite(data, self.layout.offsets[tensor] + offset)
        with self._lock:
            self._written_bytes += len(data)

    def commit(self) -> None:
        """Make the file durable under its final name, replacing an older one."""
        assert self._state is _State.WRITING
        assert self._written_bytes == self.layout.data_bytes, "rows are missing"
        try:
            os.fsync(self._fd)
            os.replace(self._partial, self.path)
            self._state = _State.COMMITTED
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._state is _State.WRITING:
            self._state = _State.DISCARDED
            self._partial.unlink(missing_ok=True)
        os.close(self._fd)

    def _start(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConversionError(
                f"{self._partial} is being written by another conversion", "wait for it, or use another folder"
            ) from error
        try:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, self.layout.num_bytes)
            self._pwrite(memoryview(self.layout.header), 0)
        except (OSError, ConversionError) as error:
            self._partial.unlink(missing_ok=True)
            raise self._failure(error) if isinstance(error, OSError) else error from error

    def _pwrite(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                written = os.pwrite(self._fd, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> ConversionError:
        return ConversionError(
            f"cannot write {self.path}: {error.strerror or error}", "free some space or choose another folder with -o"
        )


def make_folder(folder: Path) -> None:
    """`folder` and its parents, where they are not there yet. Raises ConversionError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(
            f"cannot make the folder {folder}: {error.strerror or error}", "choose another with -o"
        ) from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
