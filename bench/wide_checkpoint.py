"""A checkpoint with the real model's row lengths and any number of layers: FP8 decoder, BF16 embedding and head.

Weights are drawn once as a pool of normal values, rounded to FP8 with one scale, and laid out from changing offsets:
what a quantiser finds in a row looks like weights, and gigabytes come as fast as the disk takes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from tests.pocket.config import NUM_SPECIAL_TOKENS, PocketConfig
from tests.pocket.documents import config_json
from tests.pocket.fp8 import encode, to_bf16
from tests.pocket.tekken import tekken_json

_POOL = 1 << 24
_STD = 0.02


@dataclass(frozen=True, slots=True)
class WideSizes:
    num_layers: int = 2
    n_embd: int = 12288
    n_ff: int = 28672
    n_vocab: int = 16384
    """Of 131,072: else embedding and head would be half of two layers, and are 2.6 % of eighty-eight."""

    @property
    def config(self) -> PocketConfig:
        return PocketConfig(
            num_layers=self.num_layers,
            n_embd=self.n_embd,
            n_ff=self.n_ff,
            n_head=self.n_embd // 128,
            n_head_kv=min(8, self.n_embd // 128),
            head_dim=128,
            num_ranks=self.n_vocab - NUM_SPECIAL_TOKENS,
        )


def write_wide_checkpoint(folder: Path, sizes: WideSizes) -> int:
    """Writes `folder`, HF layout in one shard. Returns the number of parameters."""
    config = sizes.config
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    (folder / "tekken.json").write_text(json.dumps(tekken_json(config), ensure_ascii=False), "utf-8")
    shapes = _shapes(config)
    header, end = {}, 0
    for name, shape in shapes.items():
        is_fp8 = name.endswith("_proj.weight")
        begin, end = end, end + prod(shape) * (1 if is_fp8 else 2)
        header[name] = {"dtype": "F8_E4M3" if is_fp8 else "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    values = np.random.default_rng(0).normal(0, _STD, _POOL).astype(np.float32)
    codes, scale = encode(values)
    bf16 = to_bf16(values)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (name, shape) in enumerate(shapes.items()):
            if name.endswith("_scale_inv"):
                file.write(to_bf16(np.array([scale], np.float32)).tobytes())
                continue
            pool = np.roll(codes if name.endswith("_proj.weight") else bf16, 4099 * number)
            for start in range(0, prod(shape), _POOL):
                file.write(pool[: prod(shape) - start].data)
    return sum(prod(shape) for shape in shapes.values())


def _shapes(config: PocketConfig) -> dict[str, list[int]]:
    n_embd, n_ff, n_kv = config.n_embd, config.n_ff, config.n_head_kv * config.head_dim
    shapes = {
        "model.language_model.embed_tokens.weight": [config.n_vocab, n_embd],
        "model.language_model.norm.weight": [n_embd],
        "lm_head.weight": [config.n_vocab, n_embd],
    }
    matrices = {
        "self_attn.q_proj": [n_embd, n_embd],
        "self_attn.k_proj": [n_kv, n_embd],
        "self_attn.v_proj": [n_kv, n_embd],
        "self_attn.o_proj": [n_embd, n_embd],
        "mlp.gate_proj": [n_ff, n_embd],
        "mlp.up_proj": [n_ff, n_embd],
        "mlp.down_proj": [n_embd, n_ff],
    }
    for layer in range(config.num_layers):
        block = f"model.language_model.layers.{layer}"
        for name, shape in matrices.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.weight_scale_inv": []}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{norm}.weight"] = [n_embd]
    return shapes
