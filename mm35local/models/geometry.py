"""What the planner needs of a model: its dimensions, and the bytes of each part that can be placed by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mm35local.errors import ModelFileError
from mm35local.models.gguf_header import GgufHeader
from mm35local.models.mixes import MIXES, Shape, embedding_bytes, head_bytes, layer_bytes

_LAYER = re.compile(r"blk\.(\d+)\.")
_EMBEDDING = "token_embd.weight"
_HEAD = "output.weight"


@dataclass(frozen=True, slots=True)
class Geometry:
    """`head_bytes` counts a tied embedding too: llama.cpp puts a copy of it beside the last layer on a GPU."""

    name: str
    shape: Shape
    layer_bytes: tuple[int, ...]
    embedding_bytes: int
    head_bytes: int
    is_tied: bool = False

    @property
    def num_bytes(self) -> int:
        """The file's tensors."""
        head = self.head_bytes - self.embedding_bytes if self.is_tied else self.head_bytes
        return sum(self.layer_bytes) + self.embedding_bytes + head

    @property
    def num_matrix_weights(self) -> int:
        """Weights that a prefilled token is multiplied with: the layers' matrices; only the last needs the head."""
        shape = self.shape
        attention = 2 * shape.n_embd * (shape.n_head + shape.n_head_kv) * shape.head_dim
        return shape.n_layer * (attention + 3 * shape.n_embd * shape.n_ff)


def from_header(header: GgufHeader) -> Geometry:
    """From the tensor table of a file that is here. Raises ModelFileError where its numbers contradict each other."""
    shape = _shape(header)
    layers, others = [0] * shape.n_layer, 0
    embedding = 0
    names = set()
    for tensor in header.tensors:
        names.add(tensor.name)
        found = _LAYER.match(tensor.name)
        if found and int(found[1]) >= shape.n_layer:
            raise ModelFileError(
                str(header.path), f"tensor {tensor.name} is of layer {found[1]}, the header says {shape.n_layer} layers"
            )
        if found:
            layers[int(found[1])] += tensor.num_bytes
        elif tensor.name == _EMBEDDING:
            embedding = tensor.num_bytes
        else:
            others += tensor.num_bytes
    is_tied = _HEAD not in names
    return Geometry(
        header.path.name, shape, tuple(layers), embedding, others + embedding * is_tied, is_tied and embedding > 0
    )


def from_shape(name: str, shape: Shape, quant: str) -> Geometry | None:
    """Of a model that is not here: what its file will hold at `quant`; None for a quant of no mix of ours."""
    mix = MIXES.get(quant.upper())
    if mix is None:
        return None
    layers = tuple(layer_bytes(shape, mix, layer) for layer in range(shape.n_layer))
    return Geometry(name, shape, layers, embedding_bytes(shape, mix), head_bytes(shape, mix))


def _shape(header: GgufHeader) -> Shape:
    n_embd, n_head = header.number("embedding_length"), header.number("attention.head_count")
    embedding = next((tensor for tensor in header.tensors if tensor.name == _EMBEDDING), None)
    shape = Shape(
        n_layer=header.number("block_count"),
        n_embd=n_embd,
        n_ff=_number_or(header, "feed_forward_length", 4 * n_embd),
        n_head=n_head,
        n_head_kv=_number_or(header, "attention.head_count_kv", n_head),
        head_dim=_number_or(header, "attention.key_length", n_embd // max(1, n_head)),
        n_vocab=embedding.shape[-1] if embedding else 0,
        n_ctx_train=header.number("context_length"),
    )
    if not 1 <= shape.n_layer <= len(header.tensors) + 1 or min(shape.n_embd, shape.n_head_kv, shape.head_dim) < 1:
        raise ModelFileError(
            str(header.path),
            f"{shape.n_layer} layers of width {shape.n_embd} with {shape.n_head_kv} KV heads of {shape.head_dim} "
            f"in a file of {len(header.tensors)} tensors",
        )
    return shape


def _number_or(header: GgufHeader, key: str, default: int) -> int:
    return header.number(key) if f"{header.architecture}.{key}" in header.metadata else default
