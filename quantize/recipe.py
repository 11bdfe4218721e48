"""The quants that can be asked for, and the type that each tensor gets in them: llama.cpp's own mixes."""

from __future__ import annotations

from collections.abc import Sequence

from mm35local.errors import UsageError
from mm35local.native import quant
from quantize.decoder import Decoder
from quantize.hyperparameters import Hyperparameters

ARCHITECTURE = "mistral3"

FTYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "Q4_1": 3,
    "Q4_0": 2,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "Q2_K": 10,
}
"""llama.h's enum llama_ftype, large to small; the mixes that need no importance matrix."""


def parse_quants(names: Sequence[str]) -> tuple[str, ...]:
    """Canonical names, repeats removed. Raises UsageError for an unknown or an empty list."""
    parsed = tuple(dict.fromkeys(name.upper() for name in names))
    unknown = [name for name in parsed if name not in FTYPES]
    if unknown:
        raise UsageError(f"unknown quant {unknown[0]!r}", f"known: {', '.join(FTYPES)}")
    if not parsed:
        raise UsageError("no quant given", "say which with --to, for example --to Q4_K_M")
    return parsed


def assign_types(params: Hyperparameters, decoder: Decoder, quant_name: str) -> list[int]:
    """ggml's type id for each of `decoder.tensors`, as llama.cpp would choose it."""
    model = quant.ModelShape(
        ARCHITECTURE, params.n_embd, params.n_ff, params.num_layers, params.n_head, params.n_head_kv, params.head_dim
    )
    tensors = [(tensor.gguf_name, tensor.shape) for tensor in decoder.tensors]
    return quant.assign_types(model, tensors, FTYPES[quant_name])
