"""The committed miniature is whole, small, and the same model in every layout derived from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.pocket.native_layout import native_tensor
from tests.pocket.training.released import RELEASE, TRAINED, read_tensors, write_native, write_renamed
from tests.pocket.weights import generate

_MOST_BYTES = 15_000_000


def test_the_release_is_complete_and_small() -> None:
    names = {path.name for path in RELEASE.iterdir()}
    documents = {"config.json", "params.json", "tekken.json", "chat_template.jinja", "SYSTEM_PROMPT.txt", "README.md"}
    assert documents | {"training.log", "model.safetensors.index.json"} <= names
    assert sum(path.stat().st_size for path in RELEASE.iterdir()) <= _MOST_BYTES


def test_its_tensors_are_those_of_the_random_miniature() -> None:
    expected = {tensor.name: (tensor.dtype, tensor.data.squeeze().shape) for tensor in generate(TRAINED, 0)}
    found = {tensor.name: (tensor.dtype, tensor.data.squeeze().shape) for tensor in read_tensors(RELEASE)}
    assert found == expected
    index = json.loads((RELEASE / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(expected)


def test_the_native_layout_holds_the_same_codes(tmp_path: Path) -> None:
    native = {tensor.name: tensor.data for tensor in read_tensors(write_native(RELEASE, tmp_path))}
    for tensor in read_tensors(RELEASE):
        expected = native_tensor(tensor, TRAINED)
        assert np.array_equal(native[expected.name], expected.data), expected.name
        assert np.array_equal(np.sort(expected.data, None), np.sort(tensor.data, None))
    assert any(name.endswith(".qscale_weight") for name in native)


def test_the_other_scale_names_change_nothing_else(tmp_path: Path) -> None:
    renamed = {tensor.name: tensor.data for tensor in read_tensors(write_renamed(RELEASE, tmp_path))}
    original = {tensor.name: tensor.data for tensor in read_tensors(RELEASE)}
    assert len(renamed) == len(original)
    scales = [name for name in original if name.endswith(("weight_scale_inv", "activation_scale"))]
    assert not set(scales) & set(renamed)
    assert all(np.array_equal(renamed[name], original[name]) for name in set(original) - set(scales))
