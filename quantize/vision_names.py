"""What a checkpoint calls the tensors of the vision tower and the projector, and what libmtmd calls them."""

from __future__ import annotations

import re

from quantize.checkpoint import Layout

_HF_BLOCK = {
    "attention_norm": "ln1",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_out",
    "ffn_norm": "ln2",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
}
_HF_WHOLE = {
    "vision_tower.patch_conv": "v.patch_embd",
    "vision_tower.ln_pre": "v.pre_ln",
    "multi_modal_projector.norm": "mm.input_norm",
    "multi_modal_projector.patch_merger.merging_layer": "mm.patch_merger",
    "multi_modal_projector.linear_1": "mm.1",
    "multi_modal_projector.linear_2": "mm.2",
}
_NATIVE_BLOCK = {
    "attention_norm": "ln1",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_out",
    "ffn_norm": "ln2",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
}
_NATIVE_WHOLE = {
    "vision_encoder.patch_conv": "v.patch_embd",
    "vision_encoder.ln_pre": "v.pre_ln",
    "pre_mm_projector_norm": "mm.input_norm",
    "patch_merger.merging_layer": "mm.patch_merger",
    "vision_language_adapter.w_in": "mm.1",
    "vision_language_adapter.w_out": "mm.2",
}
_BLOCK = re.compile(r"vision_(tower|encoder)\.transformer\.layers\.(0|[1-9]\d{0,3})\.(.+)", re.ASCII)


def vision_module(layout: Layout, module: str) -> str | None:
    """`vision_tower.transformer.layers.3.ffn_norm` → `v.blk.3.ln2`, libmtmd's name; None if unknown."""
    is_hf = layout is Layout.HF
    whole = _HF_WHOLE if is_hf else _NATIVE_WHOLE
    block = _HF_BLOCK if is_hf else _NATIVE_BLOCK
    if module in whole:
        return whole[module]
    match = _BLOCK.fullmatch(module)
    if match is None or match[3] not in block or (match[1] == "tower") is not is_hf:
        return None
    return f"v.blk.{match[2]}.{block[match[3]]}"
