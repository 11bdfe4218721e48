"""Pairs every tensor that a GGUF of the text decoder needs with the one in the checkpoint that fills it.

Invariant: a `Decoder` is complete: nothing missing, doubled, unknown or of another shape than the config says.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint
from quantize.hyperparameters import Hyperparameters
from quantize.names import WEIGHT_SCALES, Kind, canonical, classify, gguf_module, num_heads_to_permute
from quantize.shard import StoredTensor

_FP8 = "F8_E4M3"
_WEIGHT_DTYPES = (_FP8, "BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class DecoderTensor:
    gguf_name: str
    stored: StoredTensor
    scale: float
    """Of FP8 weights; 1.0 otherwise."""
    num_heads: int
    """Heads whose rows must be interleaved; 0 for none."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def num_rows(self) -> int:
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def row_length(self) -> int:
        return self.shape[-1]


@dataclass(frozen=True, slots=True)
class Decoder:
    tensors: tuple[DecoderTensor, ...]
    """In llama.cpp's order: whole-model tensors, then layer by layer, by name."""
    num_skipped: int
    """Tensors of the vision tower and the projector, which are not part of this GGUF."""
    skipped_bytes: int

    @property
    def source_bytes(self) -> int:
        return sum(tensor.stored.num_bytes for tensor in self.tensors)


def collect_decoder(checkpoint: Checkpoint, params: Hyperparameters) -> Decoder:
    """Raises CheckpointError naming the file and tensor at fault."""
    by_name = by_canonical_name(checkpoint)
    skipped = [tensor for name, tensor in by_name.items() if classify(checkpoint.layout, name) is Kind.VISION]
    expected = _expected_shapes(params)
    tensors: dict[str, DecoderTensor] = {}
    for name, stored in by_name.items():
        kind = classify(checkpoint.layout, name)
        if kind is Kind.UNKNOWN:
            raise CheckpointError(str(stored.path), "unknown tensor", "is this Mistral Medium 3.5?", stored.name)
        if kind is Kind.TEXT:
            tensor = _decoder_tensor(checkpoint, params, name, by_name)
            _check_shape(tensor, expected)
            tensors[tensor.gguf_name] = tensor
    for gguf_name in expected:
        if gguf_name not in tensors:
            raise CheckpointError(str(checkpoint.folder), f"no shard holds what becomes {gguf_name} in a GGUF")
    ordered = tuple(sorted(tensors.values(), key=lambda tensor: llama_cpp_order(tensor.gguf_name)))
    return Decoder(ordered, len(skipped), sum(tensor.num_bytes for tensor in skipped))


def llama_cpp_order(gguf_name: str) -> tuple[int, str]:
    """The order in which libllama walks tensors; its counters of layers depend on it."""
    parts = gguf_name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else -1, gguf_name)


def by_canonical_name(checkpoint: Checkpoint) -> dict[str, StoredTensor]:
    """Raises CheckpointError for a tensor that stands there under two spellings."""
    result: dict[str, StoredTensor] = {}
    for stored in checkpoint.tensors.values():
        name = canonical(checkpoint.layout, stored.name)
        if name in result:
            raise CheckpointError(str(stored.path), f"the same as {result[name].name}", tensor=stored.name)
        result[name] = stored
    return result


def _expected_shapes(params: Hyperparameters) -> dict[str, tuple[int, ...]]:
    n_embd, n_ff = params.n_embd, params.n_ff
    n_q, n_kv = params.n_head * params.head_dim, params.n_head_kv * params.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (n_embd,),
        "attn_q": (n_q, n_embd),
        "attn_k": (n_kv, n_embd),
        "attn_v": (n_kv, n_embd),
        "attn_output": (n_embd, n_q),
        "ffn_norm": (n_embd,),
        "ffn_gate": (n_ff, n_embd),
        "ffn_up": (n_ff, n_embd),
        "ffn_down": (n_embd, n_ff),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (params.n_vocab, n_embd),
        "output_norm.weight": (n_embd,),
    }
    if not params.is_tied:
        shapes["output.weight"] = (params.n_vocab, n_embd)
    for layer in range(params.num_layers):
        shapes.update((f"blk.{layer}.{part}.weight", shape) for part, shape in block.items())
    return shapes


def _check_shape(tensor: DecoderTensor, expected: dict[str, tuple[int, ...]]) -> None:
    stored = tensor.stored
    if tensor.gguf_name not in expected:
        raise CheckpointError(str(stored.path), "the config has no place for it", tensor=stored.name)
    if stored.shape != expected[tensor.gguf_name]:
        raise CheckpointError(
            str(stored.path),
            f"expected the shape {list(expected[tensor.gguf_name])}, found {list(stored.shape)}",
            tensor=stored.name,
        )


def _decoder_tensor(
    checkpoint: Checkpoint, params: Hyperparameters, name: str, by_name: dict[str, StoredTensor]
) -> DecoderTensor:
    stored, module = by_name[name], name.removesuffix(".weight")
    gguf_name = f"{gguf_module(checkpoint.layout, module)}.weight"
    num_heads = num_heads_to_permute(checkpoint.layout, gguf_name, params.n_head, params.n_head_kv)
    return DecoderTensor(gguf_name, stored, weight_scale(stored, module, by_name), num_heads)


def weight_scale(stored: StoredTensor, module: str, by_name: dict[str, StoredTensor]) -> float:
    """What the codes of an FP8 weight are multiplied by; 1.0 for the other dtypes. Raises CheckpointError."""
    if stored.dtype not in _WEIGHT_DTYPES:
        raise CheckpointError(
            str(stored.path), f"expected one of {', '.join(_WEIGHT_DTYPES)}, found {stored.dtype}", tensor=stored.name
        )
    return _find_scale(stored, module, by_name) if stored.dtype == _FP8 else 1.0


def _find_scale(stored: StoredTensor, module: str, by_name: dict[str, StoredTensor]) -> float:
    scales = [by_name[name] for leaf in WEIGHT_SCALES if (name := f"{module}.{leaf}") in by_name]
    if len(scales) != 1:
        found = "none" if not scales else " and ".join(scale.name for scale in scales)
        raise CheckpointError(
            str(stored.path), f"FP8 needs one scale ({', '.join(WEIGHT_SCALES)}) beside it, found {found}",
            tensor=stored.name,
        )  # fmt: skip
    return _read_scale(scales[0])


def _read_scale(stored: StoredTensor) -> float:
    widths = {"BF16": 2, "F16": 2, "F32": 4}
    if stored.dtype not in widths or stored.num_bytes != widths[stored.dtype]:
        raise CheckpointError(
            str(stored.path), f"expected one BF16, F16 or F32 number, found {stored.dtype} {list(stored.shape)}",
            tensor=stored.name,
        )  # fmt: skip
    with stored.path.open("rb") as file:
        raw = os.pread(file.fileno(), stored.num_bytes, stored.offset)
    if len(raw) < stored.num_bytes:
        raise CheckpointError(str(stored.path), "the file was cut short meanwhile", tensor=stored.name)
    if stored.dtype == "F16":
        value = float(np.frombuffer(raw, np.float16)[0])
    else:
        value = float(np.frombuffer(b"\0\0" + raw if stored.dtype == "BF16" else raw, np.float32)[0])
    if not (np.isfinite(value) and value > 0):
        raise CheckpointError(str(stored.path), f"expected a positive scale, found {value}", tensor=stored.name)
    return value
