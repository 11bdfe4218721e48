"""Bytes per tensor of a model that is not here yet: llama.cpp's own mixes for the quants in the catalog.

Invariant: the sums equal what libllama itself would choose (tests/models/test_mixes.py asks it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mm35local.models.ggml_types import GGML_TYPES, GgmlType

_TYPES: dict[str, GgmlType] = {type_.name: type_ for type_ in GGML_TYPES.values()}
_F32_BYTES = 4

HasMoreBits = Callable[[int, int], bool]
"""Whether layer `i` of `n` is one of those that the mix gives more bits."""


def _nowhere(_layer: int, _num_layers: int) -> bool:
    return False


def _everywhere(_layer: int, _num_layers: int) -> bool:
    return True


def _first_eighth(layer: int, num_layers: int) -> bool:
    return layer < num_layers // 8


def _first_four(layer: int, _num_layers: int) -> bool:
    return layer < 4


def _more_bits(layer: int, num_layers: int) -> bool:
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


@dataclass(frozen=True, slots=True)
class Mix:
    """`base` for every matrix but the head; `better` for attn_v and ffn_down in the layers named."""

    base: str
    head: str
    better: str
    better_v: HasMoreBits = _nowhere
    better_down: HasMoreBits = _nowhere


MIXES: dict[str, Mix] = {
    "IQ4_XS": Mix("IQ4_XS", "Q6_K", "Q5_K", _everywhere, _first_eighth),
    "Q4_K_S": Mix("Q4_K", "Q6_K", "Q5_K", _first_four, _first_eighth),
    "Q4_K_M": Mix("Q4_K", "Q6_K", "Q6_K", _more_bits, _more_bits),
    "Q5_K_M": Mix("Q5_K", "Q6_K", "Q6_K", _more_bits, _more_bits),
    "Q6_K": Mix("Q6_K", "Q6_K", "Q6_K"),
    "Q8_0": Mix("Q8_0", "Q8_0", "Q8_0"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a dense decoder, in llama.cpp's words."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx_train: int


def embedding_bytes(shape: Shape, mix: Mix) -> int:
    return _matrix(mix.base, shape.n_embd, shape.n_vocab)


def head_bytes(shape: Shape, mix: Mix) -> int:
    """The output matrix and its norm."""
    return _matrix(mix.head, shape.n_embd, shape.n_vocab) + shape.n_embd * _F32_BYTES


def layer_bytes(shape: Shape, mix: Mix, layer: int) -> int:
    """All tensors of one layer: four of attention, three of the FFN, two norms."""
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    of_v = mix.better if mix.better_v(layer, shape.n_layer) else mix.base
    of_down = mix.better if mix.better_down(layer, shape.n_layer) else mix.base
    attention = 2 * _matrix(mix.base, n_q, shape.n_embd) + _matrix(mix.base, shape.n_embd, n_kv)
    ffn = 2 * _matrix(mix.base, shape.n_embd, shape.n_ff) + _matrix(of_down, shape.n_ff, shape.n_embd)
    return attention + _matrix(of_v, shape.n_embd, n_kv) + ffn + 2 * shape.n_embd * _F32_BYTES


def _matrix(type_name: str, row_length: int, num_rows: int) -> int:
    type_ = _TYPES[type_name]
    return row_length // type_.block_elements * type_.block_bytes * num_rows
