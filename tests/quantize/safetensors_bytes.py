"""safetensors files byte by byte, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def shard_bytes(header: dict[str, Any] | bytes, data: bytes = b"", header_length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if header_length is None else header_length
    return length.to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, data) of a good shard."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]
