"""The header of one safetensors shard: which tensor lies where.

Invariant: every tensor returned lies whole inside the file, and no two overlap. No number in the file is used to
allocate anything. Format: 8 bytes of header length (little-endian), a JSON header, the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`offset` counts from the start of the file; rows are contiguous, the last dimension fastest."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int


def read_shard(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of `path` in file order. Raises CheckpointError naming the file and, where known, the tensor."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            _check_header_length(path, header_bytes, file_bytes)
            header = parse_object(file.read(header_bytes), path)
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from error
    header.pop("__metadata__", None)
    data_start = _LENGTH_BYTES + header_bytes
    tensors = [_parse_entry(path, name, entry, data_start) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    _check_placement(path, tensors, file_bytes)
    return tuple(tensors)


def _check_header_length(path: Path, header_bytes: int, file_bytes: int) -> None:
    limit = min(_MAX_HEADER_BYTES, file_bytes - _LENGTH_BYTES)
    if not 0 < header_bytes <= limit:
        raise CheckpointError(
            str(path), f"not a safetensors file: header of {header_bytes} bytes, expected 1 to {max(limit, 1)}"
        )


def _parse_entry(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
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
    return StoredTensor(name, dtype, tuple(shape), path, data_start + begin, expected)


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
