"""What `inspect` warns of, in files with one damage each."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.models.inspect import inspect_file
from tests.models.gguf_bytes import Tensor, gguf, text, tiny_llama


def _warnings(folder: Path, data: bytes) -> str:
    (folder / "m.gguf").write_bytes(data)
    return "; ".join(inspect_file(folder / "m.gguf").warnings)


def test_a_good_file_has_none(smollm2_path: Path) -> None:
    inspection = inspect_file(smollm2_path)
    assert inspection.warnings == ()
    assert inspection.shares[0].type_name == "Q4_1"
    assert sum(share.num_bytes for share in inspection.shares) == inspection.header.tensor_bytes
    assert 130e6 < inspection.num_parameters < 170e6
    assert 4 < inspection.bits_per_weight < 8


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (tiny_llama(num_data_bytes=100), "the file is cut short: tensor token_embd.weight ends at byte"),
        (gguf([text("general.architecture", "clip")], [], 0), "an empty projector"),
        (
            gguf(
                [text("general.architecture", "clip"), text("clip.projector_type", "pixtral")],
                [Tensor("mm.1.weight", (8,), 0, 0)], 32,
            ),
            "it lacks v.token_embd.img_break",
        ),
        (gguf([text("general.architecture", "llama")], [], 0), "it has no tensors"),
        (tiny_llama(), "it has no vocabulary"),
        (
            gguf([text("general.architecture", "mistral3"), text("tokenizer.ggml.pre", "pixtral")], [], 0),
            "tokenizer.ggml.pre is pixtral, expected tekken",
        ),
    ],
)  # fmt: skip
def test_damage_is_told(tmp_path: Path, data: bytes, warning: str) -> None:
    assert warning in _warnings(tmp_path, data)
