from __future__ import annotations

import math
from pathlib import Path

import pytest

from mm35local.models.catalog import load_catalog
from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.mixes import MIXES, Shape, embedding_bytes, head_bytes, layer_bytes
from mm35local.native import quant
from quantize.recipe import FTYPES
from tests.models.test_plan_table import MEDIUM


def libllamas_bytes(shape: Shape, quant_name: str) -> int:
    """What libllama chooses for every matrix, summed, plus the norms in F32."""
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    block = {
        "attn_k": (n_kv, shape.n_embd),
        "attn_output": (shape.n_embd, n_q),
        "attn_q": (n_q, shape.n_embd),
        "attn_v": (n_kv, shape.n_embd),
        "ffn_down": (shape.n_embd, shape.n_ff),
        "ffn_gate": (shape.n_ff, shape.n_embd),
        "ffn_up": (shape.n_ff, shape.n_embd),
    }
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("output.weight", (shape.n_vocab, shape.n_embd)),
        ("token_embd.weight", (shape.n_vocab, shape.n_embd)),
    ]
    for layer in range(shape.n_layer):
        tensors += [(f"blk.{layer}.{name}.weight", dims) for name, dims in block.items()]
    model = quant.ModelShape(
        "mistral3", shape.n_embd, shape.n_ff, shape.n_layer, shape.n_head, shape.n_head_kv, shape.head_dim
    )
    types = quant.assign_types(model, tensors, FTYPES[quant_name])
    matrices = sum(
        math.prod(dims) // GGML_TYPES[kind].block_elements * GGML_TYPES[kind].block_bytes
        for (_, dims), kind in zip(tensors, types, strict=True)
    )
    return matrices + (2 * shape.n_layer + 1) * shape.n_embd * 4


@pytest.mark.parametrize("quant_name", MIXES)
@pytest.mark.parametrize("shape", [MEDIUM, Shape(40, 5120, 14336, 32, 8, 128, 131072, 131072)])
def test_the_table_is_libllamas(shape: Shape, quant_name: str) -> None:
    mix = MIXES[quant_name]
    layers = sum(layer_bytes(shape, mix, layer) for layer in range(shape.n_layer))
    assert layers + embedding_bytes(shape, mix) + head_bytes(shape, mix) == libllamas_bytes(shape, quant_name)


def test_the_catalog_agrees() -> None:
    entry = load_catalog(Path("/nonexistent/models.toml")).entry("mistral-medium-3.5")
    assert entry.shape is not None
    assert Shape(**entry.shape.model_dump(), n_ctx_train=entry.n_ctx_train) == MEDIUM
    for variant in entry.variants:
        assert libllamas_bytes(MEDIUM, variant.quant) == pytest.approx(variant.bytes, rel=0.001)
