"""What a checkpoint calls its tensors, in either layout and every known spelling, and what a GGUF calls them.

Invariant: a tensor of the text decoder gets exactly one GGUF name; anything unknown is told apart, never dropped.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from quantize.checkpoint import Layout

_HF_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_HF_WHOLE = {
    "language_model.embed_tokens": "token_embd",
    "language_model.norm": "output_norm",
    "lm_head": "output",
}
_NATIVE_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
}
_NATIVE_WHOLE = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
_BLOCK = re.compile(r"(?:language_model\.)?layers\.(0|[1-9]\d{0,3})\.(.+)", re.ASCII)

_VISION = {
    Layout.HF: ("vision_tower.", "multi_modal_projector."),
    Layout.NATIVE: ("vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm."),
}
WEIGHT_SCALES = ("weight_scale_inv", "weight_scale", "qscale_weight")
"""Multiply: w = fp8 * scale. The release's HF and native names, and re-uploads'."""
ACTIVATION_SCALES = ("activation_scale", "input_scale", "qscale_act")


class Kind(Enum):
    TEXT = auto()
    SCALE = auto()
    VISION = auto()
    UNKNOWN = auto()


def canonical(layout: Layout, name: str) -> str:
    """One spelling for the three that HF files use: `language_model.layers…`, `lm_head`, `vision_tower…`."""
    if layout is Layout.NATIVE:
        return name
    name = name.removeprefix("model.")
    for long, short in (("language_model.model.", "language_model."), ("language_model.lm_head.", "lm_head.")):
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name


def classify(layout: Layout, name: str) -> Kind:
    """What the tensor with this canonical name is for."""
    module, _, leaf = name.rpartition(".")
    if name.startswith(_VISION[layout]):
        return Kind.VISION
    if gguf_module(layout, module) is None:
        return Kind.UNKNOWN
    if leaf in WEIGHT_SCALES or leaf in ACTIVATION_SCALES:
        return Kind.SCALE
    return Kind.TEXT if leaf == "weight" else Kind.UNKNOWN


def gguf_module(layout: Layout, module: str) -> str | None:
    """`language_model.layers.3.mlp.up_proj` or `layers.3.feed_forward.w3` → `blk.3.ffn_up`; None if unknown."""
    whole, block = (_HF_WHOLE, _HF_BLOCK) if layout is Layout.HF else (_NATIVE_WHOLE, _NATIVE_BLOCK)
    if module in whole:
        return whole[module]
    match = _BLOCK.fullmatch(module)
    if match is None or match[2] not in block or module.startswith("language_model.") is not (layout is Layout.HF):
        return None
    return f"blk.{match[1]}.{block[match[2]]}"


def num_heads_to_permute(layout: Layout, gguf_name: str, n_head: int, n_head_kv: int) -> int:
    """Heads whose rows are half-split and must be interleaved for llama.cpp's NORM rope; 0 for none."""
    if layout is Layout.NATIVE:
        return 0
    if gguf_name.endswith(".attn_q.weight"):
        return n_head
    return n_head_kv if gguf_name.endswith(".attn_k.weight") else 0
