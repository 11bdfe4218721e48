"""Every key of the GGUF, read back by gguf-py."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader

import mm35local
from tests.pocket import PocketConfig

_EXPECTED = {
    "general.architecture": "mistral3",
    "general.type": "model",
    "general.name": "Mistral Medium 3.5 pocket",
    "general.license": "other",
    "general.license.name": "modified-mit",
    "general.license.link": "LICENSE",
    "general.quantized_by": "mm35local",
    "mm35local.recipe": "--to Q5_K_M",
    "general.quantization_version": 2,
    "mm35local.version": mm35local.__version__,
    "mistral3.context_length": 262_144,
    "mistral3.embedding_length": 256,
    "mistral3.block_count": 4,
    "mistral3.feed_forward_length": 768,
    "mistral3.vocab_size": 16_384,
    "mistral3.attention.head_count": 8,
    "mistral3.attention.head_count_kv": 2,
    "mistral3.attention.key_length": 32,
    "mistral3.attention.value_length": 32,
    "mistral3.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
    "mistral3.attention.temperature_scale": 0.0,
    "mistral3.rope.dimension_count": 32,
    "mistral3.rope.freq_base": 1e6,
    "mistral3.rope.scaling.type": "yarn",
    "mistral3.rope.scaling.factor": 64.0,
    "mistral3.rope.scaling.original_context_length": 4096,
    "mistral3.rope.scaling.yarn_beta_fast": 4.0,
    "mistral3.rope.scaling.yarn_beta_slow": 1.0,
    "mistral3.rope.scaling.yarn_log_multiplier": 0.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "tekken",
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 11,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": False,
}
_CHECKED_APART = {
    "general.file_type",
    "tokenizer.chat_template",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
}


def test_every_key(pocket_gguf: Path, pocket_checkpoint: Path) -> None:
    fields = GGUFReader(pocket_gguf / "Mistral-Medium-3.5-pocket-Q5_K_M.gguf").fields
    found = {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}
    assert {name: value for name, value in found.items() if name not in _CHECKED_APART} == _EXPECTED
    assert found["general.file_type"] == 17
    assert found["tokenizer.chat_template"] == (pocket_checkpoint / "hf/chat_template.jinja").read_text("utf-8")
    assert len(found["tokenizer.ggml.tokens"]) == len(found["tokenizer.ggml.token_type"]) == PocketConfig().n_vocab
    assert len(found["tokenizer.ggml.merges"]) == PocketConfig().num_ranks - 256
