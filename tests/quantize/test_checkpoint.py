"""Folders of shards: both layouts are found, and whatever is missing or lies is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mm35local.errors import CheckpointError
from quantize.checkpoint import Layout, open_checkpoint
from tests.quantize.safetensors_bytes import entry, shard_bytes

_SHARD = "model-00002-of-00003.safetensors"
_INDEX = "model.safetensors.index.json"


def _refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    return caught.value


def _edit_index(folder: Path, name: str, file: object) -> None:
    index = json.loads((folder / _INDEX).read_text())
    index["weight_map"][name] = file
    (folder / _INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("layout", Layout)
def test_both_layouts_are_found(pocket_checkpoint: Path, layout: Layout) -> None:
    folder = pocket_checkpoint / ("hf" if layout is Layout.HF else "native")
    found = open_checkpoint(folder)
    assert found.layout is layout
    index = json.loads((folder / layout.index_name).read_text())
    assert {name: tensor.path.name for name, tensor in found.tensors.items()} == index["weight_map"]


def test_a_folder_with_both_is_read_as_hf(pocket_checkpoint: Path, hf_copy: Path) -> None:
    shutil.copytree(pocket_checkpoint / "native", hf_copy, dirs_exist_ok=True)
    assert open_checkpoint(hf_copy).layout is Layout.HF


def test_shards_without_an_index_are_found(hf_copy: Path) -> None:
    expected = open_checkpoint(hf_copy).tensors
    (hf_copy / _INDEX).unlink()
    assert open_checkpoint(hf_copy).tensors == expected


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(hf_copy: Path, with_index: bool) -> None:
    (hf_copy / _SHARD).unlink()
    if not with_index:
        (hf_copy / _INDEX).unlink()
    assert _refusal(hf_copy).message == f"{hf_copy / _SHARD}: this shard is missing"


def test_a_truncated_shard_is_named_with_its_tensor(hf_copy: Path) -> None:
    shard = hf_copy / _SHARD
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    refusal = _refusal(hf_copy)
    assert (refusal.file, refusal.tensor) == (str(shard), "model.language_model.embed_tokens.weight")


def test_an_index_that_promises_too_much(hf_copy: Path) -> None:
    _edit_index(hf_copy, "lm_head.bias", _SHARD)
    refusal = _refusal(hf_copy)
    assert (refusal.file, refusal.tensor) == (str(hf_copy / _SHARD), "lm_head.bias")


def test_an_index_that_names_the_wrong_shard(hf_copy: Path) -> None:
    _edit_index(hf_copy, "lm_head.weight", _SHARD)
    assert _refusal(hf_copy).tensor == "lm_head.weight"


def test_an_index_that_forgets_a_tensor(hf_copy: Path) -> None:
    index = json.loads((hf_copy / _INDEX).read_text())
    del index["weight_map"]["model.language_model.norm.weight"]
    (hf_copy / _INDEX).write_text(json.dumps(index))
    refusal = _refusal(hf_copy)
    assert "does not list it" in refusal.message
    assert refusal.tensor == "model.language_model.norm.weight"


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", 3, None, "model.bin"])
def test_an_index_cannot_lead_out_of_the_folder(hf_copy: Path, file: object) -> None:
    _edit_index(hf_copy, "lm_head.weight", file)
    assert "expected a shard's file name" in _refusal(hf_copy).message


def test_a_tensor_in_two_shards(hf_copy: Path) -> None:
    (hf_copy / _INDEX).unlink()
    (hf_copy / "model-extra.safetensors").write_bytes(shard_bytes({"lm_head.weight": entry(0, 1)}, b"x"))
    refusal = _refusal(hf_copy)
    assert "model-00001-of-00003.safetensors too" in refusal.message
    assert refusal.tensor == "lm_head.weight"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_damaged_index(hf_copy: Path, content: str) -> None:
    (hf_copy / _INDEX).write_text(content)
    assert _refusal(hf_copy).file == str(hf_copy / _INDEX)


def test_no_folder_and_no_checkpoint(tmp_path: Path) -> None:
    assert "no such folder" in _refusal(tmp_path / "none").message
    assert "no checkpoint here" in _refusal(tmp_path).message
