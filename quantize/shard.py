"""The header of one safetensors shard: which tensor lies where.

Invariant: every tensor returned lies whole inside the file, and no two overlap. No number in the file is used to
allocate anything. Format: 8 bytes of header length (little-endian), a JSON header, the data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from mm35local.errors import CheckpointError
from quantize.json_file import parse_object

DTYPE_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
_MAX_DIMS = 8
LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class KeptBytes:
    """What is known of a shard without its weights: see `head`."""

    identity: str
    """The hub's name for the content of the whole shard; empty where its tensors' first bytes are kept instead."""
    spans: Mapping[int, bytes]
    """By their offset in the shard."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`offset` counts from the start of the file; rows are contiguous, the last dimension fastest."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int
    kept: KeptBytes | None = field(default=None, compare=False, repr=False)
    """Where the shard is described by its head, not read."""

    def first_bytes(self, num_bytes: int) -> bytes:
        """At most `num_bytes`, fewer of a file that shrank. Raises CheckpointError."""
        num_bytes = min(num_bytes, self.num_bytes)
        try:
            if self.kept is not None:
                return self._kept_bytes(self.kept, num_bytes)
            with self.path.open("rb") as file:
                return os.pread(file.fileno(), num_bytes, self.offset)
        except OSError as error:
            raise CheckpointError(
                str(self.path), f"cannot be read: {error.strerror or error}", tensor=self.name
            ) from error

    def _kept_bytes(self, kept: KeptBytes, num_bytes: int) -> bytes:
        span = kept.spans.get(self.offset, b"")
        if len(span) >= num_bytes:
            return span[:num_bytes]
        raise CheckpointError(
            str(self.path), "its weights are gone, and what was kept of them is not enough", tensor=self.name
        )


def read_shard(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of `path` in file order. Raises CheckpointError naming the file and, where known, the tensor."""
    header, file_bytes = read_header(path)
    return parse_tensors(path, header, file_bytes)


def read_header(path: Path) -> tuple[bytes, int]:
    """(the JSON header as it stands there, bytes of the whole file). Raises CheckpointError."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = header_length(path, file.read(LENGTH_BYTES), file_bytes)
            return file.read(header_bytes), file_bytes
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from error


def parse_tensors(
    path: Path, header: bytes, file_bytes: int, kept: KeptBytes | None = None
) -> tuple[StoredTensor, ...]:
    """The tensors in the order they lie in the file. Raises CheckpointError."""
    entries = parse_object(header, path)
    entries.pop("__metadata__", None)
    data_start = LENGTH_BYTES + len(header)
    tensors = [_parse_entry(path, name, entry, data_start, kept) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    _check_placement(path, tensors, file_bytes)
    return tuple(tensors)


def header_length(path: Path, first_bytes: bytes, file_bytes: int) -> int:
    """What the first eight bytes say, if it can be true. Raises CheckpointError."""
    header_bytes = int.from_bytes(first_bytes[:LENGTH_BYTES], "little")
    limit = min(_MAX_HEADER_BYTES, file_bytes - LENGTH_BYTES)
    if not 0 < header_bytes <= limit:
        raise CheckpointError(
            str(path), f"not a safetensors file: header of {header_bytes} bytes, expected 1 to {max(limit, 1)}"
        )
    return header_bytes


def _parse_entry(path: Path, name: str, entry: Any, data_start: int, kept: KeptBytes | None) -> StoredTensor:
    def wrong(problem: str) -> CheckpointError:
        return CheckpointError(str(path), problem, tensor=name)

    if not isinstance(entry, dict):
        raise wrong(f"expected an object in the header, found {type(entry).__name__}")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise wrong(f"unknown dtype {dtype!r}")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMS:
        raise wrong(f"expected a shape of at most {_MAX_DIMS} sizes, found {_shown(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise wrong(f"expected two data_offsets, found {_shown(offsets)}")
    begin, end = offsets
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != expected:
        raise wrong(f"{dtype} {shape} takes {expected} bytes, data_offsets give {end - begin}")
    return StoredTensor(name, dtype, tuple(shape), path, data_start + begin, expected, kept)


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_placement(path: Path, tensors: list[StoredTensor], file_bytes: int) -> None:
    for tensor in tensors:
        end = tensor.offset + tensor.num_bytes
        if end > file_bytes:
            raise CheckpointError(
                str(path), f"ends at byte {end}, the file has {file_bytes}: it is cut short", tensor=tensor.name
            )
    for before, after in pairwise(tensors):
        if before.offset + before.num_bytes > after.offset:
            raise CheckpointError(str(path), f"overlaps tensor {before.name}", tensor=after.name)
