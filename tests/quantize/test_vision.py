"""The projector file: both layouts to the same bytes, what stands in it, and what libmtmd makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from mm35local.errors import CheckpointError, UsageError
from mm35local.models.gguf_header import read_header
from quantize.checkpoint import open_checkpoint
from quantize.vision import write_mmproj
from tests.pocket import PocketConfig
from tests.quantize import safetensors_bytes
from tests.quantize.gguf_tensors import read_tensors
from tests.quantize.llama_probe import LlamaProbe

_NAME = "Mistral-Medium-3.5-pocket-mmproj-F16.gguf"
_CELL = 28
"""Pixels a side of what becomes one token."""
_SIZES = (
    (1, 1),
    (28, 28),
    (200, 30),
    (640, 480),
    (480, 640),
    (1540, 1540),
    (3000, 700),
    (90, 2000),
    (29, 57),
    (1541, 9),
)


@pytest.fixture(scope="module")
def mmproj(pocket_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mmproj(pocket_checkpoint / "hf", tmp_path_factory.mktemp("mmproj")).path


def test_both_layouts_give_identical_files(pocket_checkpoint: Path, mmproj: Path, tmp_path: Path) -> None:
    assert mmproj.name == _NAME
    for type_name in ("f16", "bf16", "q8_0"):
        hf = write_mmproj(pocket_checkpoint / "hf", tmp_path / "hf", type_name).path
        native = write_mmproj(pocket_checkpoint / "native", tmp_path / "native", type_name).path
        assert hf.name == native.name
        assert hf.read_bytes() == native.read_bytes()
        assert hf.read_bytes() == mmproj.read_bytes() or type_name != "f16"


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_spelling_gives_the_same_file(hf_copy: Path, mmproj: Path, tmp_path: Path, prefix: str) -> None:
    """transformers 5's `language_model.model.`, and files with or without the leading `model.`."""
    (hf_copy / "model.safetensors.index.json").unlink()
    for path in hf_copy.glob("*.safetensors"):
        header, data = safetensors_bytes.read_header(path)
        renamed = {
            name.replace("model.language_model.", "language_model.model.")
            .replace("model.vision_tower.", f"{prefix}vision_tower.")
            .replace("model.multi_modal_projector.", f"{prefix}multi_modal_projector."): entry
            for name, entry in header.items()
        }
        path.write_bytes(safetensors_bytes.shard_bytes(renamed, data))
    assert write_mmproj(hf_copy, tmp_path / "out").path.read_bytes() == mmproj.read_bytes()


def test_keys_and_tensors_are_libmtmds(pocket_checkpoint: Path, mmproj: Path) -> None:
    header, config = read_header(mmproj), PocketConfig()
    assert header.architecture == "clip"
    metadata = header.metadata
    assert (metadata["clip.projector_type"], metadata["clip.vision.image_size"]) == ("pixtral", 1540)
    assert (metadata["clip.vision.patch_size"], metadata["clip.vision.spatial_merge_size"]) == (14, 2)
    assert metadata["clip.vision.projection_dim"] == config.n_embd
    assert metadata["clip.use_silu"] is True
    assert metadata["mm35local.recipe"] == "--mmproj F16"
    assert len(header.tensors) == 9 * config.vision_layers + 2 + 4 + 1
    tensors = read_tensors(mmproj)
    assert tensors["v.patch_embd.weight"].shape == (14, 14, 3, config.vision_embd)
    embedding = open_checkpoint(pocket_checkpoint / "hf").tensors["model.language_model.embed_tokens.weight"]
    data = embedding.path.read_bytes()[embedding.offset + 12 * config.n_embd * 2 :][: config.n_embd * 2]
    row = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(np.frombuffer(tensors["v.token_embd.img_break"].data, np.float32), row)


def test_libmtmd_counts_tokens_as_mistral_common(llama: LlamaProbe, pocket_f32: Path, mmproj: Path) -> None:
    """Of pictures as mistral-common resizes them: to whole cells, at most 1540 pixels a side."""
    encoder = ImageEncoder(ImageConfig(14, 1540, 2), SpecialImageIDs(10, 12, 13))
    cells = [encoder._image_to_num_tokens(Image.new("RGB", size)) for size in _SIZES]
    expected = [(width + 1) * height for width, height in cells]
    resized = [(width * _CELL, height * _CELL) for width, height in cells]
    found = llama.ask("image_tokens", path=str(pocket_f32), mmproj=str(mmproj), sizes=resized)
    assert found == expected


def test_every_type_shows_the_decoder_nearly_the_same(
    llama: LlamaProbe, pocket_checkpoint: Path, pocket_f32: Path, tmp_path: Path
) -> None:
    """And [IMG_BREAK] stands behind each row of patches but the last."""
    config = PocketConfig()
    seen = {}
    for type_name in ("f16", "bf16", "q8_0"):
        path = write_mmproj(pocket_checkpoint / "native", tmp_path, type_name).path
        rows = llama.ask(
            "image_embeddings", path=str(pocket_f32), mmproj=str(path), size=(112, 84), n_embd=config.n_embd
        )
        seen[type_name] = np.array(rows, np.float32)
    assert seen["f16"].shape == (4 * 3 + 2, config.n_embd)
    img_break = np.frombuffer(read_tensors(path)["v.token_embd.img_break"].data, np.float32)
    np.testing.assert_array_equal(seen["f16"][[4, 9]], [img_break, img_break])
    patches = np.delete(seen["f16"], [4, 9], 0)
    for type_name in ("bf16", "q8_0"):
        error = np.delete(seen[type_name], [4, 9], 0) - patches
        assert np.linalg.norm(error) < 0.02 * np.linalg.norm(patches)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("vision_config", "rope_parameters", {"rope_theta": 5000.0}),
        ("vision_config", "hidden_act", "gelu"),
        ("vision_config", "num_attention_heads", 5),
        ("vision_config", "intermediate_size", 128),
        ("vision_config", "num_hidden_layers", 3),
        ("vision_config", "num_hidden_layers", 1),
        (None, "vision_feature_layer", -2),
        (None, "multimodal_projector_bias", True),
        (None, "vision_config", None),
    ],
)
def test_a_projector_that_libmtmd_would_compute_wrongly_is_refused(
    hf_copy: Path, tmp_path: Path, part: str | None, field: str, value: object
) -> None:
    config = json.loads((hf_copy / "config.json").read_text())
    (config[part] if part else config)[field] = value
    (hf_copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"checkpoint"):
        write_mmproj(hf_copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_types_are_usage_errors(pocket_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown projector type 'q4_0'") as caught:
        write_mmproj(pocket_checkpoint / "hf", tmp_path, "q4_0")
    assert "Q8_0" in caught.value.hint
