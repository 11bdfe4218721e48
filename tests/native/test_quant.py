"""The bindings to llama.cpp's quantisers. That types and bytes are llama.cpp's own is tests/quantize's business."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from mm35local.errors import ConversionError
from mm35local.native import quant

_SHAPE = quant.ModelShape("mistral3", 12288, 28672, 88, 96, 8, 128)
_TYPES = [GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "IQ4_XS")]


@pytest.mark.parametrize("kind", _TYPES)
def test_rows_come_back_close(kind: GGMLQuantizationType) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 512), np.float32)
    packed = quant.quantize_rows(kind, rows)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    assert packed.nbytes == 3 * quant.row_bytes(kind, 512) == 3 * 512 // block * block_bytes
    error = np.abs(dequantize(packed.reshape(3, -1), kind) - rows).max()
    assert error <= {"F32": 0, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2}.get(kind.name, 0.35)
    assert quant.type_name(kind).upper() == kind.name


def test_types_of_the_real_model_add_up_to_its_known_size() -> None:
    """MODEL: Q4_K_M of the 128B's 618 matrices is 74.9 GB."""
    block = {
        "attn_k": (1024, 12288), "attn_output": (12288, 12288), "attn_q": (12288, 12288), "attn_v": (1024, 12288),
        "ffn_down": (12288, 28672), "ffn_gate": (28672, 12288), "ffn_up": (28672, 12288),
    }  # fmt: skip
    tensors = [("output.weight", (131072, 12288)), ("token_embd.weight", (131072, 12288))]
    tensors += [(f"blk.{layer}.{name}.weight", shape) for layer in range(88) for name, shape in block.items()]
    types = quant.assign_types(_SHAPE, tensors, 15)
    total = sum(shape[0] * quant.row_bytes(kind, shape[1]) for (_, shape), kind in zip(tensors, types, strict=True))
    assert round(total / 1e9, 1) == 74.9


def test_vectors_and_norms_stay_f32() -> None:
    tensors = [("blk.0.attn_norm.weight", (256,)), ("blk.0.attn_q.weight", (256, 256))]
    assert quant.assign_types(_SHAPE, tensors, 15) == [0, int(GGMLQuantizationType.Q4_K)]


def test_rows_that_no_block_divides_are_refused_in_words() -> None:
    with pytest.raises(ConversionError, match=r"blk\.0\.attn_q\.weight has rows of 40"):
        quant.assign_types(_SHAPE, [("blk.0.attn_q.weight", (256, 40))], 7)


def test_a_missing_symbol_is_refused_in_words() -> None:
    with pytest.raises(ConversionError, match="has no llama_quant_renamed") as caught:
        quant._function(ctypes.CDLL(None), "llama_quant_renamed", None)
    assert "llama-cpp-python" in caught.value.hint
