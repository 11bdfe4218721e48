"""A checkpoint folder: which layout it is in, and where each of its tensors lies over all shards.

Invariant: when a `Checkpoint` exists, every shard or its head is there, every header was checked, and index and headers
agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mm35local.errors import CheckpointError
from quantize.head import SUFFIX, head_path, read_head
from quantize.json_file import read_object
from quantize.shard import StoredTensor, read_shard

_NUMBERED = re.compile(r"(.+)-\d+-of-(\d+)\.safetensors")


class Layout(StrEnum):
    """The two ways the same weights stand on the hub. The value is the stem of the shards' names."""

    HF = "model"
    NATIVE = "consolidated"

    @property
    def config_name(self) -> str:
        return "config.json" if self is Layout.HF else "params.json"

    @property
    def index_name(self) -> str:
        return f"{self.value}.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path
    layout: Layout
    tensors: Mapping[str, StoredTensor]
    """By the name in the file."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Find the layout, read and check every header. A folder with both layouts is read as HF.

    Raises CheckpointError naming the file (and tensor) at fault.
    """
    if not folder.is_dir():
        raise CheckpointError(str(folder), "no such folder", "give the folder that holds the .safetensors files")
    layout = _find_layout(folder)
    index = folder / layout.index_name
    tensors = _read_indexed(index) if index.is_file() else _read_unindexed(folder, layout)
    return Checkpoint(folder, layout, tensors)


def _find_layout(folder: Path) -> Layout:
    for layout in Layout:
        has_weights = (folder / layout.index_name).is_file() or _shard_names(folder, layout)
        if has_weights and (folder / layout.config_name).is_file():
            return layout
    raise CheckpointError(
        str(folder),
        "no checkpoint here: expected config.json with model*.safetensors, "
        "or params.json with consolidated*.safetensors",
        "download all files of one layout into one folder",
    )


def _read_indexed(index: Path) -> dict[str, StoredTensor]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(str(index), "expected a weight_map of tensor names to file names")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).name != file:
            raise CheckpointError(str(index), f"expected a shard's file name, found {file!r}", tensor=name)
    found = _read_shards(index.parent, sorted(set(weight_map.values())))
    for name, file in weight_map.items():
        if name not in found or found[name].path.name != file:
            raise CheckpointError(
                str(index.parent / file), f"{index.name} promises it, the shard lacks it", tensor=name
            )
    for name, tensor in found.items():
        if name not in weight_map:
            raise CheckpointError(str(tensor.path), f"{index.name} does not list it", tensor=name)
    return found


def _shard_names(folder: Path, layout: Layout) -> list[str]:
    """Those whose weights or head are here."""
    found = [*folder.glob(f"{layout.value}*.safetensors"), *folder.glob(f"{layout.value}*.safetensors{SUFFIX}")]
    return sorted({path.name.removesuffix(SUFFIX) for path in found})


def _read_unindexed(folder: Path, layout: Layout) -> dict[str, StoredTensor]:
    names = _shard_names(folder, layout)
    match = _NUMBERED.fullmatch(names[0])
    if match:
        stem, total = match.groups()
        if int(total) > len(names):
            expected = {f"{stem}-{number:0{len(total)}}-of-{total}.safetensors" for number in range(1, len(names) + 2)}
            raise _missing_shard(folder / min(expected - set(names)))
    return _read_shards(folder, names)


def _read_shards(folder: Path, names: list[str]) -> dict[str, StoredTensor]:
    for name in names:
        if not (folder / name).is_file() and not head_path(folder / name).is_file():
            raise _missing_shard(folder / name)
    found: dict[str, StoredTensor] = {}
    for name in names:
        for tensor in _read_tensors(folder / name):
            if tensor.name in found:
                other = found[tensor.name].path.name
                raise CheckpointError(str(tensor.path), f"stands in {other} too", tensor=tensor.name)
            found[tensor.name] = tensor
    return found


def _read_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """From the shard itself where it is here, but for one that the hub named before it was here."""
    head = read_head(path)
    is_here = path.is_file()
    return head.tensors() if head and (head.kept.identity or not is_here) else read_shard(path)


def _missing_shard(path: Path) -> CheckpointError:
    return CheckpointError(str(path), "this shard is missing", "download the missing file into the same folder")
