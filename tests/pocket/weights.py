"""Random weights of the miniature, under the names of the HF layout.

Scales keep activations near 1 and logits near N(0, 3), so that quants differ by rounding and not by luck. The reserved
tokens get small output rows, like rows that training never touched: a random model then never emits one.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.pocket.config import NUM_SPECIAL_TOKENS, PocketConfig
from tests.pocket.fp8 import encode, to_bf16

_LOGIT_STD = 3.0
_RESERVED_STD = 0.1


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor: `data` holds FP8 codes (uint8) or bfloat16 bits (uint16)."""

    name: str
    data: NDArray[np.uint8] | NDArray[np.uint16]

    @property
    def dtype(self) -> str:
        return "F8_E4M3" if self.data.dtype == np.uint8 else "BF16"


def generate(config: PocketConfig, seed: int) -> Iterator[Tensor]:
    """Every tensor of the HF layout. Each draws from its own stream, so one never shifts another."""
    for name, shape, std in _bf16_shapes(config):
        values = _normal(seed, name, shape) * np.float32(std)
        if name.endswith("norm.weight") or name.endswith("ln_pre.weight"):
            values += np.float32(1.0)
        if name == "lm_head.weight":
            values[:NUM_SPECIAL_TOKENS] *= np.float32(_RESERVED_STD / _LOGIT_STD)
        yield Tensor(name, to_bf16(values))
    for name, shape, std in _linear_shapes(config):
        codes, scale = encode(_normal(seed, name, shape) * np.float32(std))
        yield Tensor(f"{name}.weight", codes)
        yield Tensor(f"{name}.weight_scale_inv", to_bf16(np.array(scale, np.float32)))
        yield Tensor(f"{name}.activation_scale", to_bf16(np.array(1 / 64, np.float32)))


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return stream.standard_normal(shape, dtype=np.float32)


def _linear_shapes(config: PocketConfig) -> Iterator[tuple[str, tuple[int, ...], float]]:
    n_embd, n_ff = config.n_embd, config.n_ff
    n_q, n_kv = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
    shapes = {
        "self_attn.q_proj": (n_q, n_embd),
        "self_attn.k_proj": (n_kv, n_embd),
        "self_attn.v_proj": (n_kv, n_embd),
        "self_attn.o_proj": (n_embd, n_q),
        "mlp.gate_proj": (n_ff, n_embd),
        "mlp.up_proj": (n_ff, n_embd),
        "mlp.down_proj": (n_embd, n_ff),
    }
    into_residual = 1 / math.sqrt(2 * config.num_layers)
    for layer in range(config.num_layers):
        for part, shape in shapes.items():
            gain = into_residual if part.endswith(("o_proj", "down_proj")) else 1.0
            yield f"model.language_model.layers.{layer}.{part}", shape, gain / math.sqrt(shape[1])


def _bf16_shapes(config: PocketConfig) -> Iterator[tuple[str, tuple[int, ...], float]]:
    yield "model.language_model.embed_tokens.weight", (config.n_vocab, config.n_embd), 1.0
    yield "lm_head.weight", (config.n_vocab, config.n_embd), _LOGIT_STD / math.sqrt(config.n_embd)
    yield "model.language_model.norm.weight", (config.n_embd,), 0.1
    for layer in range(config.num_layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.language_model.layers.{layer}.{norm}.weight", (config.n_embd,), 0.1
    yield from _tower_shapes(config)
    yield from _projector_shapes(config)


def _tower_shapes(config: PocketConfig) -> Iterator[tuple[str, tuple[int, ...], float]]:
    tower, n_embd, n_ff = "model.vision_tower", config.vision_embd, config.vision_ff
    patch = (3, config.patch_size, config.patch_size)
    yield f"{tower}.patch_conv.weight", (n_embd, *patch), 1 / math.sqrt(math.prod(patch))
    yield f"{tower}.ln_pre.weight", (n_embd,), 0.1
    for layer in range(config.vision_layers):
        block = f"{tower}.transformer.layers.{layer}"
        for part in ("q", "k", "v", "o"):
            yield f"{block}.attention.{part}_proj.weight", (n_embd, n_embd), 1 / math.sqrt(n_embd)
        for part in ("gate", "up"):
            yield f"{block}.feed_forward.{part}_proj.weight", (n_ff, n_embd), 1 / math.sqrt(n_embd)
        yield f"{block}.feed_forward.down_proj.weight", (n_embd, n_ff), 1 / math.sqrt(n_ff)
        yield f"{block}.attention_norm.weight", (n_embd,), 0.1
        yield f"{block}.ffn_norm.weight", (n_embd,), 0.1


def _projector_shapes(config: PocketConfig) -> Iterator[tuple[str, tuple[int, ...], float]]:
    projector, n_embd = "model.multi_modal_projector", config.vision_embd
    merged = n_embd * config.spatial_merge_size**2
    yield f"{projector}.norm.weight", (n_embd,), 0.1
    yield f"{projector}.patch_merger.merging_layer.weight", (n_embd, merged), 1 / math.sqrt(merged)
    yield f"{projector}.linear_1.weight", (config.n_embd, n_embd), 1 / math.sqrt(n_embd)
    yield f"{projector}.linear_2.weight", (config.n_embd, config.n_embd), 1 / math.sqrt(config.n_embd)
