"""The tensors of a GGUF with their bytes, for comparing files; gguf-py's reader takes seconds over a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mm35local.models.gguf_header import read_header


class TensorBytes(NamedTuple):
    type_name: str
    shape: tuple[int, ...]
    data: bytes


def read_tensors(path: Path) -> dict[str, TensorBytes]:
    """By name, in file order."""
    header, raw = read_header(path), path.read_bytes()
    return {
        tensor.name: TensorBytes(
            tensor.type_name,
            tensor.shape,
            raw[header.data_offset + tensor.offset :][: tensor.num_bytes],
        )
        for tensor in header.tensors
    }
