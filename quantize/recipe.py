"""The quants that can be asked for, and the type that each tensor gets in them: llama.cpp's own mixes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from mm35local.errors import UsageError
from mm35local.native import quant
from quantize.decoder import Decoder
from quantize.hyperparameters import Hyperparameters
from quantize.imatrix import Imatrix

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
    "IQ3_M": 27,
    "IQ3_S": 26,
    "IQ3_XS": 22,
    "IQ3_XXS": 23,
    "Q2_K": 10,
    "Q2_K_S": 21,
    "IQ2_M": 29,
    "IQ2_S": 28,
    "IQ2_XS": 20,
    "IQ2_XXS": 19,
    "TQ2_0": 37,
    "TQ1_0": 36,
    "IQ1_M": 31,
    "IQ1_S": 24,
}
"""llama.h's enum llama_ftype, large to small. Left out: MXFP4_MOE (for experts), and NVFP4, Q1_0 and Q2_0, which are
for weights trained in them."""

_TENSOR_TYPES = {
    name: GGMLQuantizationType[name].value
    for name in (
        "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS",
        "Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
    )
}  # fmt: skip
_MANY_QUERIES = 4
"""Query heads per KV head from which libllama gives attn_v more bits."""
_NEEDS_IMPORTANCE = {_TENSOR_TYPES[name] for name in ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")}
"""llama.cpp refuses to write these without an importance matrix, except in the embedding and the output matrix."""


@dataclass(frozen=True, slots=True)
class TensorRule:
    """Tensors whose GGUF name has a match for `pattern` get this type."""

    pattern: re.Pattern[str]
    ggml_type: int


def parse_quants(names: Sequence[str]) -> tuple[str, ...]:
    """Canonical names, repeats removed. Raises UsageError for an unknown or an empty list."""
    parsed = tuple(dict.fromkeys(name.upper() for name in names))
    unknown = [name for name in parsed if name not in FTYPES]
    if unknown:
        raise UsageError(f"unknown quant {unknown[0]!r}", f"known: {', '.join(FTYPES)}")
    if not parsed:
        raise UsageError("no quant given", "say which with --to, for example --to Q4_K_M")
    return parsed


def parse_tensor_rules(texts: Sequence[str]) -> tuple[TensorRule, ...]:
    """`regex=TYPE` each, as llama-quantize's --tensor-type. Raises UsageError."""
    rules = []
    for text in texts:
        pattern, _, name = text.rpartition("=")
        if not pattern or name.upper() not in _TENSOR_TYPES:
            raise UsageError(
                f"cannot read the tensor type {text!r}: expected REGEX=TYPE", f"types: {', '.join(_TENSOR_TYPES)}"
            )
        try:
            rules.append(TensorRule(re.compile(pattern), _TENSOR_TYPES[name.upper()]))
        except re.error as error:
            raise UsageError(f"{pattern!r} is no regular expression: {error}", "for example 'ffn_down=Q6_K'") from error
    return tuple(rules)


def assign_types(
    params: Hyperparameters,
    decoder: Decoder,
    quant_name: str,
    rules: Sequence[TensorRule] = (),
    imatrix: Imatrix | None = None,
) -> list[int]:
    """ggml's type id for each of `decoder.tensors`, as llama.cpp would choose it; the first rule that matches wins.

    Raises UsageError for a rule that matches nothing, and for a type that needs an importance matrix.
    """
    model = quant.ModelShape(
        ARCHITECTURE, params.n_embd, params.n_ff, params.num_layers, params.n_head, params.n_head_kv, params.head_dim
    )
    tensors = [(tensor.gguf_name, tensor.shape) for tensor in decoder.tensors]
    ruled = _overrides(decoder, rules)
    overrides = ruled if imatrix is None else _with_importance(params, decoder, quant_name, ruled) | ruled
    types = quant.assign_types(model, tensors, FTYPES[quant_name], overrides)
    for (name, shape), kind in zip(tensors, types, strict=True):
        _check(name, shape, kind, quant_name, imatrix)
    return types


def _overrides(decoder: Decoder, rules: Sequence[TensorRule]) -> dict[str, int]:
    names = [tensor.gguf_name for tensor in decoder.tensors if len(tensor.shape) == 2]
    overrides: dict[str, int] = {}
    for rule in rules:
        matching = [name for name in names if rule.pattern.search(name)]
        if not matching:
            raise UsageError(
                f"no tensor matches {rule.pattern.pattern!r}", "names look like blk.0.ffn_down.weight and output.weight"
            )
        for name in matching:
            overrides.setdefault(name, rule.ggml_type)
    return overrides


def _with_importance(
    params: Hyperparameters, decoder: Decoder, quant_name: str, ruled: Mapping[str, int]
) -> dict[str, int]:
    """Where a mix differs with an importance matrix: what libllama says when it is asked alone knows of none.

    The four places of its rules that look at a matrix, for a model without experts. Layers are counted as libllama
    does, without those that a rule took out of the mix.
    """
    downs = [
        name
        for tensor in decoder.tensors
        if (name := tensor.gguf_name).endswith(".ffn_down.weight") and name not in ruled
    ]
    own = _TENSOR_TYPES.get(quant_name, 0)
    if quant_name in ("IQ4_NL", "IQ4_XS"):
        return dict.fromkeys(downs, own)
    if quant_name in ("Q4_0", "Q5_0"):
        num_early = params.num_layers // 8
        early = _TENSOR_TYPES[quant_name.replace("_0", "_1")]
        return dict.fromkeys(downs, own) | dict.fromkeys(downs[:num_early], early)
    if quant_name == "IQ3_XXS":
        values = [tensor.gguf_name for tensor in decoder.tensors if tensor.gguf_name.endswith(".attn_v.weight")]
        is_wide = params.n_head // params.n_head_kv < _MANY_QUERIES
        return dict.fromkeys(downs + (values if is_wide else []), own)
    return {}


def _check(name: str, shape: tuple[int, ...], kind: int, quant_name: str, imatrix: Imatrix | None) -> None:
    type_name = GGMLQuantizationType(kind).name
    if shape[-1] % GGML_QUANT_SIZES[GGMLQuantizationType(kind)][0]:
        raise UsageError(f"{name} has rows of {shape[-1]}, which {type_name} does not divide", "choose another type")
    needs = kind in _NEEDS_IMPORTANCE or (quant_name == "Q2_K_S" and type_name == "Q2_K")
    is_exempt = name in ("token_embd.weight", "output.weight")
    if needs and not is_exempt and (imatrix is None or name not in imatrix.columns):
        raise UsageError(
            f"{quant_name} would write {name} as {type_name}, which needs an importance matrix", "add --imatrix FILE"
        )
