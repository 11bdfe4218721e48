"""The bytes in models.toml against libllama's own choice of types for the true geometry."""

from __future__ import annotations

from pathlib import Path

from mm35local.models.catalog import load_catalog
from mm35local.native.quant import ModelShape, assign_types, row_bytes
from quantize.recipe import FTYPES

N_EMBD, N_FF, NUM_LAYERS, N_VOCAB, N_KV = 12288, 28672, 88, 131072, 1024
SHAPE = ModelShape("mistral3", N_EMBD, N_FF, NUM_LAYERS, 96, 8, 128)
PER_LAYER: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("attn_k", (N_KV, N_EMBD)),
    ("attn_norm", (N_EMBD,)),
    ("attn_output", (N_EMBD, N_EMBD)),
    ("attn_q", (N_EMBD, N_EMBD)),
    ("attn_v", (N_KV, N_EMBD)),
    ("ffn_down", (N_EMBD, N_FF)),
    ("ffn_gate", (N_FF, N_EMBD)),
    ("ffn_norm", (N_EMBD,)),
    ("ffn_up", (N_FF, N_EMBD)),
)


def _tensors() -> list[tuple[str, tuple[int, ...]]]:
    whole: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (N_VOCAB, N_EMBD)),
        ("output_norm.weight", (N_EMBD,)),
        ("output.weight", (N_VOCAB, N_EMBD)),
    ]
    return whole + [(f"blk.{i}.{name}.weight", shape) for i in range(NUM_LAYERS) for name, shape in PER_LAYER]


def test_mediums_variants_have_the_bytes_of_llama_cpps_mixes() -> None:
    tensors = _tensors()
    assert len(tensors) == 795
    for variant in load_catalog(Path("/nonexistent")).entry("mistral-medium-3.5").variants:
        types = assign_types(SHAPE, tensors, FTYPES[variant.quant])
        rows = [(shape[0] if len(shape) == 2 else 1, shape[-1]) for _, shape in tensors]
        total = sum(count * row_bytes(kind, length) for (count, length), kind in zip(rows, types, strict=True))
        assert total == variant.bytes, variant.quant
