"""Names in every spelling lead to the same GGUF name, and nothing unknown passes."""

from __future__ import annotations

import pytest

from quantize.checkpoint import Layout
from quantize.names import Kind, canonical, classify, gguf_module, num_heads_to_permute


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (
            [
                "model.language_model.layers.87.self_attn.q_proj",
                "language_model.layers.87.self_attn.q_proj",
                "language_model.model.layers.87.self_attn.q_proj",
            ],
            "blk.87.attn_q",
        ),
        (["lm_head", "language_model.lm_head", "model.lm_head"], "output"),
        (
            [
                "model.language_model.embed_tokens",
                "language_model.model.embed_tokens",
                "language_model.embed_tokens",
            ],
            "token_embd",
        ),
        (["model.language_model.norm", "language_model.model.norm"], "output_norm"),
    ],
)
def test_hf_spellings(spellings: list[str], expected: str) -> None:
    for spelling in spellings:
        name = canonical(Layout.HF, f"{spelling}.weight")
        assert gguf_module(Layout.HF, name.removesuffix(".weight")) == expected


@pytest.mark.parametrize(
    ("layout", "name", "kind"),
    [
        (Layout.HF, "language_model.layers.0.mlp.up_proj.weight", Kind.TEXT),
        (Layout.HF, "language_model.layers.0.mlp.up_proj.weight_scale_inv", Kind.SCALE),
        (Layout.HF, "language_model.layers.0.mlp.up_proj.weight_scale", Kind.SCALE),
        (Layout.HF, "language_model.layers.0.mlp.up_proj.input_scale", Kind.SCALE),
        (Layout.HF, "language_model.layers.0.mlp.up_proj.bias", Kind.UNKNOWN),
        (Layout.HF, "language_model.layers.00.mlp.up_proj.weight", Kind.UNKNOWN),
        (Layout.HF, "language_model.layers.٣.mlp.up_proj.weight", Kind.UNKNOWN),
        (Layout.HF, "language_model.layers.0.mlp.experts.weight", Kind.UNKNOWN),
        (Layout.HF, "layers.0.mlp.up_proj.weight", Kind.UNKNOWN),
        (Layout.HF, "vision_tower.patch_conv.weight", Kind.VISION),
        (Layout.HF, "multi_modal_projector.linear_1.weight", Kind.VISION),
        (Layout.HF, "weight", Kind.UNKNOWN),
        (Layout.NATIVE, "layers.3.feed_forward.w2.weight", Kind.TEXT),
        (Layout.NATIVE, "layers.3.feed_forward.w2.qscale_act", Kind.SCALE),
        (Layout.NATIVE, "layers.3.feed_forward.w4.weight", Kind.UNKNOWN),
        (Layout.NATIVE, "language_model.layers.3.feed_forward.w2.weight", Kind.UNKNOWN),
        (Layout.NATIVE, "pre_mm_projector_norm.weight", Kind.VISION),
        (Layout.NATIVE, "vision_encoder.ln_pre.weight", Kind.VISION),
    ],
)
def test_kinds(layout: Layout, name: str, kind: Kind) -> None:
    assert classify(layout, name) is kind


def test_only_hf_query_and_key_rows_are_permuted() -> None:
    assert num_heads_to_permute(Layout.HF, "blk.1.attn_q.weight", 96, 8) == 96
    assert num_heads_to_permute(Layout.HF, "blk.1.attn_k.weight", 96, 8) == 8
    assert num_heads_to_permute(Layout.HF, "blk.1.attn_v.weight", 96, 8) == 0
    assert num_heads_to_permute(Layout.NATIVE, "blk.1.attn_q.weight", 96, 8) == 0
