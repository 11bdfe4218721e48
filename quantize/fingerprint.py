"""Tells conversions apart: two with one fingerprint give the same bytes, so one may go on where the other stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from mm35local.errors import CheckpointError
from quantize.decoder import Decoder
from quantize.shard import StoredTensor

PROBE_BYTES = 64
"""Of each tensor: enough to see that other weights have taken the place of these."""


def fingerprint(decoder: Decoder, recipe: Iterable[bytes]) -> str:
    """SHA-256 over what is read (names, types, scales, the first bytes of each tensor) and how it is written."""
    total = hashlib.sha256()
    for part in recipe:
        total.update(hashlib.sha256(part).digest())
    fds: dict[Path, int] = {}
    try:
        for tensor in decoder.tensors:
            facts = (tensor.gguf_name, tensor.stored.dtype, tensor.shape, tensor.scale, tensor.num_heads)
            total.update(repr(facts).encode() + _probe(tensor.stored, fds))
    finally:
        for fd in fds.values():
            os.close(fd)
    return total.hexdigest()


def _probe(stored: StoredTensor, fds: dict[Path, int]) -> bytes:
    if stored.kept is not None:
        return stored.kept.identity.encode() or stored.first_bytes(PROBE_BYTES)
    try:
        if stored.path not in fds:
            fds[stored.path] = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(fds[stored.path], min(PROBE_BYTES, stored.num_bytes), stored.offset)
    except OSError as error:
        raise CheckpointError(str(stored.path), f"cannot be read: {error.strerror or error}") from error
