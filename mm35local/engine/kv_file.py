"""One saved sequence as a file: the tokens and llama.cpp's own state of their KV cells.

    magic, version | fingerprint | number of tokens | bytes of state | checksum | tokens | state

All little-endian; the fingerprint is of model and context, the checksum over tokens and state. Invariant: a file under
its final name is whole; what differs in anything is never restored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

SUFFIX = ".mm35kv"
_SUFFIX_ASIDE = ".part"
MAGIC = b"MM35KV\x00\x02"
DIGEST_BYTES = 32
_HEADER = struct.Struct(f"<8s{DIGEST_BYTES}sIQ{DIGEST_BYTES}s")
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class KvHeader:
    tokens: Int32Array
    state_bytes: int
    digest: bytes


def fingerprint(model: Path, *context: object) -> bytes:
    """Of the model's file (its size and samples all over it) and of whatever else a state depends on."""
    digest = hashlib.blake2b(repr(context).encode(), digest_size=DIGEST_BYTES)
    num_bytes = model.stat().st_size
    digest.update(str(num_bytes).encode())
    with model.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(number * max(num_bytes - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()


def write(path: Path, mark: bytes, tokens: Int32Array, state: Bytes) -> None:
    """Aside, to the disk, then under its name; only the user can read it. Raises OSError."""
    aside = path.with_suffix(_SUFFIX_ASIDE)
    digest = _digest(tokens, state)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(_HEADER.pack(MAGIC, mark, len(tokens), len(state), digest))
            file.write(tokens.tobytes())
            file.write(state.data)
            file.flush()
            os.fsync(descriptor)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def unlink_abandoned(folder: Path, seconds: float) -> None:
    """Files written aside that nobody wrote to for so long. Another process may be writing the others."""
    for aside in folder.glob(f"*{_SUFFIX_ASIDE}"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > seconds:
                aside.unlink()


def read_header(path: Path, mark: bytes) -> KvHeader | None:
    """None if the file is not one of ours, of another model or context, or not as long as it says."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) != _HEADER.size:
                return None
            magic, found, num_tokens, state_bytes, digest = _HEADER.unpack(head)
            num_bytes = _HEADER.size + 4 * num_tokens + state_bytes
            if magic != MAGIC or found != mark or num_bytes != os.fstat(file.fileno()).st_size:
                return None
            return KvHeader(np.frombuffer(file.read(4 * num_tokens), dtype="<i4"), state_bytes, digest)
    except OSError:
        return None


def read_state(path: Path, header: KvHeader) -> Bytes | None:
    """u8[state_bytes]; None if it cannot be read or is not what was written."""
    try:
        state = np.fromfile(path, dtype=np.uint8, offset=_HEADER.size + 4 * len(header.tokens))
    except (OSError, MemoryError):
        return None
    return state if _digest(header.tokens, state) == header.digest else None


def _digest(tokens: Int32Array, state: Bytes) -> bytes:
    digest = hashlib.blake2b(tokens.tobytes(), digest_size=DIGEST_BYTES)
    digest.update(state.data)
    return digest.digest()
