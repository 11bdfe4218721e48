"""FP8 weights with a scale for each block, as `weight_block_size` in a config announces them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mm35local.errors import CheckpointError
from quantize.checkpoint import open_checkpoint
from quantize.convert import convert
from quantize.fp8 import E4M3_TABLE
from quantize.scales import BlockScales
from tests.pocket.fp8 import encode
from tests.quantize.gguf_tensors import read_tensors
from tests.quantize.safetensors_bytes import entry, read_header, shard_bytes

_BLOCK = (96, 100)
"""Divides neither rows nor columns of the pocket model, nor the heads whose rows are interleaved."""


def test_each_element_gets_its_blocks_scale() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((7, 10), np.float32)
    scales = BlockScales(rng.random((3, 4), np.float32), (3, 3))
    expected = matrix * np.array([[scales.values[i // 3, j // 3] for j in range(10)] for i in range(7)], np.float32)
    for first, end in ((0, 7), (0, 3), (2, 5), (4, 7), (6, 7)):
        rows = matrix[first:end].copy()
        scales.apply(rows, first)
        np.testing.assert_array_equal(rows, expected[first:end])
    row = matrix[4:5].copy()
    scales.of_row(4).apply(row, 0)
    np.testing.assert_array_equal(row, expected[4:5])
    assert repr(scales) != repr(BlockScales(scales.values * 2, (3, 3)))


def _in_blocks(codes: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(codes of the same values, scales [block rows, block columns]): each block is encoded anew."""
    values = E4M3_TABLE[codes] * np.float32(scale)
    height, width = _BLOCK
    grid = (-(-codes.shape[0] // height), -(-codes.shape[1] // width))
    new, scales = np.empty_like(codes), np.empty(grid, np.float32)
    for i in range(grid[0]):
        for j in range(grid[1]):
            piece = np.s_[i * height : (i + 1) * height, j * width : (j + 1) * width]
            new[piece], scales[i, j] = encode(values[piece])
    return new, scales


def _rewrite(folder: Path, *, as_blocks: bool) -> None:
    """Every FP8 weight encoded in blocks, and stored so, or as the BF16-free F32 values that this stands for."""
    index = folder / "model.safetensors.index.json"
    weight_map: dict[str, str] = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        header, data = read_header(path)
        pieces: dict[str, tuple[str, NDArray[Any]]] = {}
        raw = {
            name: np.frombuffer(data, np.uint8)[slice(*fields["data_offsets"])]
            for name, fields in header.items()
            if name != "__metadata__"
        }
        for name, part in raw.items():
            fields = header[name]
            if name.endswith("_scale_inv"):
                continue
            if fields["dtype"] != "F8_E4M3":
                pieces[name] = (fields["dtype"], part.reshape(-1))
                continue
            scale_name = name + "_scale_inv"
            scale = np.frombuffer(b"\0\0" + _anywhere(folder, scale_name), np.float32)[0]
            codes, scales = _in_blocks(part.reshape(fields["shape"]), float(scale))
            if as_blocks:
                pieces[name], pieces[scale_name] = ("F8_E4M3", codes), ("F32", scales)
            else:
                grown = np.repeat(np.repeat(scales, _BLOCK[0], 0), _BLOCK[1], 1)[: codes.shape[0], : codes.shape[1]]
                pieces[name] = ("F32", E4M3_TABLE[codes] * grown)
        new: dict[str, Any] = {}
        at = 0
        for name, (dtype, values) in pieces.items():
            shape = header[name]["shape"] if dtype != "F32" or name not in header else list(values.shape)
            new[name] = entry(at, at + values.nbytes, list(shape), dtype)
            at += values.nbytes
            weight_map[name] = path.name
        path.with_suffix(".new").write_bytes(
            shard_bytes(new, b"".join(values.tobytes() for _, values in pieces.values()))
        )
    for path in folder.glob("*.new"):
        path.rename(path.with_suffix(".safetensors"))
    index.write_text(json.dumps({"weight_map": weight_map}))
    _set_block(folder, list(_BLOCK))


def _anywhere(folder: Path, name: str) -> bytes:
    stored = open_checkpoint(folder).tensors[name]
    return stored.path.read_bytes()[stored.offset : stored.offset + stored.num_bytes]


def _set_block(folder: Path, block: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["weight_block_size"] = block
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def blocks(pocket_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blocks") / "hf"
    shutil.copytree(pocket_checkpoint / "hf", folder)
    _rewrite(folder, as_blocks=True)
    return folder


def test_blocks_give_the_bytes_of_the_values_they_stand_for(
    blocks: Path, pocket_checkpoint: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "hf"
    shutil.copytree(pocket_checkpoint / "hf", plain)
    _rewrite(plain, as_blocks=False)
    found = [convert(source, tmp_path / source.parent.name, ["Q5_K_M", "F32"]).files for source in (blocks, plain)]
    for ours, expected in zip(*found, strict=True):
        assert read_tensors(ours.path) == read_tensors(expected.path)


def _no_block(folder: Path) -> None:
    _set_block(folder, None)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_no_block, r"expected one BF16, F16 or F32 number, found F32 \["),
        (lambda folder: _set_block(folder, [96, 64]), r"for blocks of \[96, 64\]"),
        (lambda folder: _set_block(folder, [0, 128]), "two positive numbers"),
        (lambda folder: _set_block(folder, 128), "two positive numbers"),
    ],
)
def test_scales_that_do_not_fit_are_named(
    blocks: Path, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(blocks, copy)
    damage(copy)
    with pytest.raises(CheckpointError, match=problem):
        convert(copy, tmp_path / "out", ["Q8_0"])
    assert not (tmp_path / "out").exists()
