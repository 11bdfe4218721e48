"""Reads the header of a GGUF file: metadata and the tensor table, never the weights.

Invariant: no count or length in the file is believed before it is checked against the bytes that are left, so a
damaged or hostile file ends in `ModelFileError` with an offset, not in a crash or a huge allocation.
Format: the GGUF specification in ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm35local.errors import ModelFileError
from mm35local.models.ggml_types import GGML_TYPES

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9


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
class GgufHeader:
    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_bytes: int

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


class _Cursor:
    """A bounds-checked reader over the mapped file."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path = path
        self.view = view
        self.at = 0

    def fail(self, problem: str) -> ModelFileError:
        return ModelFileError(str(self.path), problem, offset=self.at)

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > len(self.view) - self.at:
            raise self.fail(
                f"the file ends inside its header: {num_bytes} bytes expected, {len(self.view) - self.at} left"
            )
        chunk = self.view[self.at : self.at + num_bytes]
        self.at += num_bytes
        return chunk

    def scalar(self, fmt: str) -> Any:
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise self.fail(f"unknown value type {kind}")
        return self.scalar(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind == _STRING:
            self.check_count(count, 8)
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:
            raise self.fail(f"an array of type {kind}, expected scalars or strings")
        fmt = _SCALARS[kind]
        self.check_count(count, struct.calcsize(fmt))
        return list(struct.unpack(f"<{count}{fmt[1]}", self.take(count * struct.calcsize(fmt))))

    def check_count(self, count: int, least_bytes_each: int) -> None:
        if count * least_bytes_each > len(self.view) - self.at:
            raise self.fail(f"a count of {count} cannot fit in the {len(self.view) - self.at} bytes left")


def read_header(path: Path) -> GgufHeader:
    """Metadata and tensor table of `path`. Raises ModelFileError, also when the data is cut short."""
    try:
        file_bytes = path.stat().st_size
        if file_bytes < len(_MAGIC):
            raise ModelFileError(str(path), f"{file_bytes} bytes is too short for a GGUF file")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _parse(_Cursor(path, view), file_bytes)
    except OSError as error:
        raise ModelFileError(str(path), error.strerror or str(error), "check the path") from error


def _parse(cursor: _Cursor, file_bytes: int) -> GgufHeader:
    magic = cursor.take(len(_MAGIC))
    if magic != _MAGIC:
        raise ModelFileError(
            str(cursor.path),
            f"not a GGUF file: starts with {magic!r}, expected {_MAGIC!r}",
            "models for mm35 are .gguf files; convert checkpoints with: mm35 quantize",
            0,
        )
    version = cursor.scalar("<I")
    if version not in _VERSIONS:
        raise cursor.fail(f"GGUF version {version}, expected one of {_VERSIONS}")
    num_tensors, num_values = cursor.scalar("<Q"), cursor.scalar("<Q")
    cursor.check_count(num_values, 13)
    metadata = dict(_entry(cursor) for _ in range(num_values))
    cursor.check_count(num_tensors, 24)
    tensors = tuple(_tensor(cursor) for _ in range(num_tensors))
    data_offset = _aligned(cursor, metadata)
    _check_data(cursor, tensors, data_offset, file_bytes)
    return GgufHeader(cursor.path, metadata, tensors, data_offset, file_bytes)


def _entry(cursor: _Cursor) -> tuple[str, Any]:
    key = cursor.string()
    return key, cursor.value(cursor.scalar("<I"))


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.string()
    num_dims = cursor.scalar("<I")
    if not 1 <= num_dims <= _MAX_DIMS:
        raise cursor.fail(f"tensor {name} has {num_dims} dimensions, expected 1 to {_MAX_DIMS}")
    shape = tuple(cursor.scalar("<Q") for _ in range(num_dims))
    kind, offset = cursor.scalar("<I"), cursor.scalar("<Q")
    if kind not in GGML_TYPES:
        raise cursor.fail(f"tensor {name} has the unknown type {kind}")
    type_ = GGML_TYPES[kind]
    if shape[0] % type_.block_elements:
        raise cursor.fail(f"tensor {name}: rows of {shape[0]} are no multiple of {type_.name}'s {type_.block_elements}")
    num_bytes = math.prod(shape) // type_.block_elements * type_.block_bytes
    return TensorInfo(name, shape, type_.name, offset, num_bytes)


def _aligned(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {alignment!r}, expected a power of two")
    return -(-cursor.at // alignment) * alignment


def _check_data(cursor: _Cursor, tensors: tuple[TensorInfo, ...], data_offset: int, file_bytes: int) -> None:
    for tensor in tensors:
        end = data_offset + tensor.offset + tensor.num_bytes
        if end > file_bytes:
            raise ModelFileError(
                str(cursor.path),
                f"the file is cut short: tensor {tensor.name} ends at byte {end}, the file has {file_bytes}",
                offset=file_bytes,
            )
