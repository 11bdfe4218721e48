"""Importance matrices: how much each column of a matrix matters, measured by llama-imatrix on a text.

Both of llama.cpp's formats are read. GGUF: `NAME.in_sum2` [row_length] and `NAME.counts` [1], float32, and the column's
weight is sum / count. Legacy .dat: int32 count; per entry int32 name length, name, int32 calls, int32 values, float32
values (sums times calls); little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mm35local.errors import ConversionError, ModelFileError
from mm35local.models.gguf_header import read_header
from quantize.decoder import Decoder

_MAX_BYTES = 1 << 30
_MAX_NAME = 256
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Imatrix:
    file: str
    sha256: str
    columns: Mapping[str, NDArray[np.float32]]
    """[row_length] float32 by the tensor's GGUF name."""


def read_imatrix(path: Path, decoder: Decoder) -> tuple[Imatrix, tuple[str, ...]]:
    """(matrix, warnings). Raises ConversionError if it is damaged or was made for another model."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise _damaged(path, f"{path.stat().st_size} bytes, expected at most {_MAX_BYTES}")
        raw = path.read_bytes()
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read: {error.strerror or error}", "check --imatrix") from error
    columns = _from_gguf(path, raw) if raw[:4] == b"GGUF" else _from_dat(path, raw)
    for name, values in columns.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise _damaged(path, f"{name} has values that are negative or no numbers")
    return Imatrix(path.name, hashlib.sha256(raw).hexdigest(), columns), _check_names(path, columns, decoder)


def _check_names(path: Path, columns: Mapping[str, NDArray[np.float32]], decoder: Decoder) -> tuple[str, ...]:
    lengths = {tensor.gguf_name: tensor.row_length for tensor in decoder.tensors if len(tensor.shape) == 2}
    for name, values in columns.items():
        if name not in lengths or len(values) != lengths[name]:
            found = f"rows of {len(values)}, this model's have {lengths[name]}" if name in lengths else "unknown here"
            raise _damaged(path, f"it speaks of {name}: {found}: was it made from this model?")
    missing = sorted(lengths.keys() - columns.keys() - {"token_embd.weight", "output.weight"})
    if not missing:
        return ()
    return (f"{path.name} says nothing of {len(missing)} tensors, {missing[0]} first: they are quantised without it",)


def _from_gguf(path: Path, raw: bytes) -> dict[str, NDArray[np.float32]]:
    try:
        header = read_header(path)
    except ModelFileError as error:
        raise _damaged(path, error.problem) from error
    values = {}
    for tensor in header.tensors:
        begin = header.data_offset + tensor.offset
        if tensor.type_name != "F32" or begin + tensor.num_bytes > len(raw):
            raise _damaged(path, f"{tensor.name} is {tensor.type_name}, expected F32 data inside the file")
        values[tensor.name] = np.frombuffer(raw, "<f4", tensor.num_bytes // 4, begin)
    columns = {}
    for name, sums in values.items():
        if name.endswith(_SUMS):
            counts = values.get(name.removesuffix(_SUMS) + _COUNTS)
            if counts is None or counts.shape != (1,):
                raise _damaged(path, f"{name} has no single count beside it: is it for a model of experts?")
            is_seen = counts[0] > 0  # llama.cpp, too, weighs the columns of a tensor that saw no token alike
            weights = sums / counts[0] if is_seen else np.ones_like(sums)
            columns[name.removesuffix(_SUMS)] = weights.astype(np.float32)
    if not columns:
        raise _damaged(path, f"it has no tensor NAME{_SUMS}: this is no importance matrix")
    return columns


def _from_dat(path: Path, raw: bytes) -> dict[str, NDArray[np.float32]]:
    """No number in the file is believed before the bytes that it promises are there."""
    at, columns = 4, {}
    try:
        (num_entries,) = struct.unpack_from("<i", raw)
        for _ in range(num_entries):
            (length,) = struct.unpack_from("<i", raw, at)
            if not 0 < length <= _MAX_NAME:
                raise _damaged(path, f"a name of {length} bytes at byte {at}")
            name, at = raw[at + 4 : at + 4 + length].decode(), at + 4 + length
            num_calls, num_values = struct.unpack_from("<ii", raw, at)
            if not 0 <= num_values <= (len(raw) - at - 8) // 4:
                raise _damaged(path, f"{name} promises {num_values} values at byte {at}")
            values = np.frombuffer(raw, "<f4", num_values, at + 8)
            at += 8 + values.nbytes
            columns[name] = (values / num_calls if num_calls > 0 else values).astype(np.float32)
    except (struct.error, UnicodeDecodeError) as error:
        raise _damaged(path, f"it ends or breaks at byte {at}") from error
    if not columns:
        raise _damaged(path, "it has no entries: this is no importance matrix")
    return columns


def _damaged(path: Path, problem: str) -> ConversionError:
    return ConversionError(f"{path}: {problem}", "make the importance matrix again with llama-imatrix")
