"""The header of a GGUF file: metadata and the tensor table, never the weights.

Invariant: a `GgufHeader` that `read_header` returned is consistent: no key or tensor twice, each tensor whole inside
the file, aligned, and over no other. Anything else ends in `ModelFileError` naming key or tensor and offset.
Format: the GGUF specification in ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mm35local.errors import ModelFileError
from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.gguf_cursor import Cursor

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_MAX_KEY_BYTES = 65_535
_MAX_NAME_BYTES = 255
"""ggml's own limit is 63; some exporters write more, and ggml says so itself."""
_MAX_DIMS = 4
_MAX_SIZE = 1 << 63
_LEAST_KEY_BYTES, _LEAST_TENSOR_BYTES = 13, 32


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the tensor table. `shape` is in ggml's order (row length first)."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    """Bytes from the start of the data section."""
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ValueSpan:
    """Where a value stands in the file, its type before it not included; `kind` is GGUF's number of that type."""

    kind: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    path: Path
    version: int
    metadata: Mapping[str, Any]
    spans: Mapping[str, ValueSpan]
    """Of each key of `metadata`."""
    tensors: tuple[TensorInfo, ...]
    end_offset: int
    """Where the tensor table ends; from here to `data_offset` there is only padding."""
    alignment: int
    file_bytes: int

    @property
    def data_offset(self) -> int:
        return -(-self.end_offset // self.alignment) * self.alignment

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)

    def number(self, key: str) -> int:
        """An integer hyperparameter of the architecture, such as `block_count`; ModelFileError if absent."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, list):
            value = max(value, default=None)
        if not isinstance(value, int):
            raise ModelFileError(str(self.path), f"expected a number under {self.architecture}.{key}, found {value!r}")
        return value


def read_header(path: Path) -> GgufHeader:
    """Metadata and tensor table of `path`. Raises ModelFileError, also when the data is cut short."""
    header = parse_header(path)
    check_data(header)
    return header


def parse_header(path: Path) -> GgufHeader:
    """The same without looking at where the data lies: for files whose damage is to be described."""
    with _opened(path) as (fd, file_bytes):
        return _parse(Cursor(path, fd, file_bytes), file_bytes)


def check_data(header: GgufHeader) -> None:
    """Raises ModelFileError for the first tensor that is misaligned, beyond the end of the file or over another."""
    placed = sorted(header.tensors, key=lambda tensor: (tensor.offset, tensor.num_bytes))
    for tensor in placed:
        begin = header.data_offset + tensor.offset
        if tensor.offset % header.alignment:
            raise _misplaced(header, tensor, f"its offset {tensor.offset} is no multiple of {header.alignment}")
        if begin + tensor.num_bytes > header.file_bytes:
            raise ModelFileError(
                str(header.path),
                f"the file is cut short: tensor {tensor.name} ends at byte {begin + tensor.num_bytes}, "
                f"the file has {header.file_bytes}",
                offset=header.file_bytes,
            )
    for before, after in pairwise(placed):
        if before.offset + before.num_bytes > after.offset:
            raise _misplaced(header, after, f"it overlaps tensor {before.name}")


def _misplaced(header: GgufHeader, tensor: TensorInfo, problem: str) -> ModelFileError:
    return ModelFileError(
        str(header.path), f"tensor {tensor.name}: {problem}", offset=header.data_offset + tensor.offset
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """(file descriptor, size). Not blocking: a pipe of that name must not make us wait for its writer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelFileError(str(path), error.strerror or str(error), "check the path") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(str(path), "expected a file, found a folder or a device", "check the path")
        if status.st_size < len(_MAGIC):
            raise ModelFileError(str(path), f"{status.st_size} bytes is too short for a GGUF file")
        yield fd, status.st_size
    except OSError as error:
        raise ModelFileError(str(path), error.strerror or str(error), "check the disk") from error
    finally:
        os.close(fd)


def _parse(cursor: Cursor, file_bytes: int) -> GgufHeader:
    magic = cursor.take(len(_MAGIC), "the magic")
    if magic != _MAGIC:
        raise cursor.fail(
            f"not a GGUF file: starts with {magic!r}, expected {_MAGIC!r}",
            "models for mm35 are .gguf files; convert checkpoints with: mm35 quantize",
            0,
        )
    version = cursor.u32("the version")
    if version not in _VERSIONS:
        raise cursor.fail(f"GGUF version {version}, expected one of {_VERSIONS}")
    num_tensors, num_values = cursor.u64("the number of tensors"), cursor.u64("the number of keys")
    cursor.check_count(num_values, _LEAST_KEY_BYTES, "the number of keys")
    metadata, spans = _read_metadata(cursor, num_values)
    cursor.check_count(num_tensors, _LEAST_TENSOR_BYTES, "the number of tensors")
    tensors = _read_tensors(cursor, num_tensors)
    return GgufHeader(
        cursor.path, version, metadata, spans, tensors, cursor.at, _alignment(cursor, metadata), file_bytes
    )


def _read_metadata(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, ValueSpan]]:
    metadata: dict[str, Any] = {}
    spans: dict[str, ValueSpan] = {}
    for _ in range(count):
        key_offset = cursor.at
        key = cursor.name("a key", _MAX_KEY_BYTES)
        if key in metadata:
            raise cursor.fail(f"key {key} stands there twice", offset=key_offset)
        kind = cursor.u32(f"key {key}")
        begin = cursor.at
        metadata[key] = cursor.value(kind, key)
        spans[key] = ValueSpan(kind, begin, cursor.at - begin)
    return metadata, spans


def _read_tensors(cursor: Cursor, count: int) -> tuple[TensorInfo, ...]:
    tensors: dict[str, TensorInfo] = {}
    for _ in range(count):
        offset = cursor.at
        tensor = _read_tensor(cursor)
        if tensor.name in tensors:
            raise cursor.fail(f"tensor {tensor.name} stands there twice", offset=offset)
        tensors[tensor.name] = tensor
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor) -> TensorInfo:
    name = cursor.name("a tensor's name", _MAX_NAME_BYTES)
    what = f"tensor {name}"
    num_dims = cursor.u32(what)
    if not 1 <= num_dims <= _MAX_DIMS:
        raise cursor.fail(f"{what} has {num_dims} dimensions, expected 1 to {_MAX_DIMS}")
    shape = tuple(cursor.u64(what) for _ in range(num_dims))
    kind, offset = cursor.u32(what), cursor.u64(what)
    if kind not in GGML_TYPES:
        raise cursor.fail(f"{what} has the unknown type {kind}")
    type_ = GGML_TYPES[kind]
    if shape[0] % type_.block_elements:
        raise cursor.fail(f"{what}: rows of {shape[0]} are no multiple of {type_.name}'s {type_.block_elements}")
    num_bytes = math.prod(shape) // type_.block_elements * type_.block_bytes
    if 0 in shape or num_bytes >= _MAX_SIZE or offset >= _MAX_SIZE:
        raise cursor.fail(f"{what}: {list(shape)} of {type_.name} at {offset} is no size of a tensor")
    return TensorInfo(name, shape, type_.name, offset, num_bytes)


def _alignment(cursor: Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.fail(f"{_ALIGNMENT_KEY} is {alignment!r}, expected a power of two up to {_MAX_ALIGNMENT}")
    return alignment
