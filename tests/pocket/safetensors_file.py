"""Writes safetensors shards and the index beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.pocket.weights import Tensor


def write_shards(folder: Path, stem: str, index_name: str, tensors: Sequence[Tensor], num_shards: int) -> None:
    """`stem`-0000i-of-0000n.safetensors, about equally large, tensors sorted by name, and `index_name`."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    total_bytes = sum(tensor.data.nbytes for tensor in ordered)
    shards: list[list[Tensor]] = [[] for _ in range(num_shards)]
    done_bytes = 0
    for tensor in ordered:
        middle = done_bytes + tensor.data.nbytes // 2
        shards[min(middle * num_shards // total_bytes, num_shards - 1)].append(tensor)
        done_bytes += tensor.data.nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{num_shards:05}.safetensors"
        write_shard(folder / name, shard)
        weight_map.update((tensor.name, name) for tensor in shard)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / index_name).write_text(json.dumps(index, indent=2) + "\n")


def write_shard(path: Path, tensors: Sequence[Tensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.data.nbytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.data.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            file.write(tensor.data.tobytes())
