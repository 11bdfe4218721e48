"""Writes small GGUF files by hand, so that tests can also write broken ones."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def uint32(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", 4, value)


def text(key: str, value: str) -> bytes:
    return string(key) + struct.pack("<I", 8) + string(value)


def gguf(values: list[bytes], tensors: list[Tensor], num_data_bytes: int, alignment: int = 32) -> bytes:
    """A whole file; the data section is zeros."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values)
    for tensor in tensors:
        head += string(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.type_id, tensor.offset)
    return head + bytes(-len(head) % alignment) + bytes(num_data_bytes)


def tiny_llama(context_length: int = 4096, num_data_bytes: int = 64 * 64 * 4) -> bytes:
    """2 layers, 4 heads of 16, 2 of them for KV: 2 x 2 x 2 x 16 x 2 = 256 bytes of F16 KV per token."""
    values = [
        text("general.architecture", "llama"),
        uint32("llama.context_length", context_length),
        uint32("llama.block_count", 2),
        uint32("llama.embedding_length", 64),
        uint32("llama.attention.head_count", 4),
        uint32("llama.attention.head_count_kv", 2),
    ]
    return gguf(values, [Tensor("token_embd.weight", (64, 64), 0, 0)], num_data_bytes)
