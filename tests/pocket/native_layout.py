"""The same tensors in Mistral's own layout: other names, and q/k rows interleaved instead of half-split."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from tests.pocket.config import PocketConfig
from tests.pocket.weights import Tensor

_PARTS = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "attention.q_proj": "attention.wq",
    "attention.k_proj": "attention.wk",
    "attention.v_proj": "attention.wv",
    "attention.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "feed_forward.gate_proj": "feed_forward.w1",
    "feed_forward.down_proj": "feed_forward.w2",
    "feed_forward.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_WHOLE = {
    "lm_head": "output",
    "model.language_model.embed_tokens": "tok_embeddings",
    "model.language_model.norm": "norm",
    "model.multi_modal_projector.norm": "pre_mm_projector_norm",
    "model.multi_modal_projector.patch_merger.merging_layer": "patch_merger.merging_layer",
    "model.multi_modal_projector.linear_1": "vision_language_adapter.w_in",
    "model.multi_modal_projector.linear_2": "vision_language_adapter.w_out",
}
_KINDS = {"weight_scale_inv": "qscale_weight", "activation_scale": "qscale_act"}
_BLOCK = re.compile(r"(?:model\.language_model|(model\.vision_tower)\.transformer)\.layers\.(\d+)\.(.+)")


def native_tensor(tensor: Tensor, config: PocketConfig) -> Tensor:
    module, _, kind = tensor.name.rpartition(".")
    kind_native = _KINDS.get(kind, kind)
    data = tensor.data
    if kind == "weight" and module.endswith(("q_proj", "k_proj")):
        is_vision = ".vision_tower." in module
        head_dim = config.vision_embd // config.vision_heads if is_vision else config.head_dim
        data = data[_interleaved_rows(len(data), head_dim)]
    return Tensor(f"{_native_module(module)}.{kind_native}", data)


def _native_module(module: str) -> str:
    if module in _WHOLE:
        return _WHOLE[module]
    match = _BLOCK.fullmatch(module)
    if match is None:
        return module.replace("model.vision_tower", "vision_encoder")
    tower, layer, part = match.groups()
    prefix = "vision_encoder.transformer." if tower else ""
    return f"{prefix}layers.{layer}.{_PARTS.get(part, part)}"


def _interleaved_rows(num_rows: int, head_dim: int) -> NDArray[np.intp]:
    """For each native row, the HF row that holds it: pair i of a head is HF rows i and i + head_dim/2."""
    within = np.array([(pair, pair + head_dim // 2) for pair in range(head_dim // 2)]).reshape(-1)
    starts = np.arange(0, num_rows, head_dim)
    rows: NDArray[np.intp] = (starts[:, None] + within).reshape(-1)
    return rows
