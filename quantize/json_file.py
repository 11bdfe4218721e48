"""Reads the JSON files of a checkpoint, which nobody vouches for: any damage is a CheckpointError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm35local.errors import CheckpointError

_MAX_BYTES = 256 << 20


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises CheckpointError if it is missing, too large or damaged."""
    try:
        num_bytes = path.stat().st_size
        if num_bytes > _MAX_BYTES:
            raise CheckpointError(str(path), f"{num_bytes} bytes, expected at most {_MAX_BYTES}")
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from error
    return parse_object(text, path)


def parse_object(text: bytes, path: Path) -> dict[str, Any]:
    """`text` of `path` as a JSON object without repeated keys. Raises CheckpointError."""
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise CheckpointError(str(path), "its JSON is nested too deep") from error
    except ValueError as error:
        raise CheckpointError(str(path), f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(str(path), f"expected a JSON object, found {type(value).__name__}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} stands there twice")
    return result
