"""Pairs every tensor that a GGUF of the text decoder needs with the one in the checkpoint that fills it.

Invariant: a `Decoder` is complete: nothing missing, doubled, unknown or of another shape than the config says.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint
from quantize.hyperparameters import Hyperparameters
from quantize.names import Kind, canonical, classify, gguf_module, num_heads_to_permute
from quantize.scales import Scale, WeightScales, read_weight_scales
from quantize.shard import StoredTensor


@dataclass(frozen=True, slots=True)
class DecoderTensor:
    gguf_name: str
    stored: StoredTensor
    scale: Scale
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
    scales = read_weight_scales(checkpoint, by_name)
    skipped = [tensor for name, tensor in by_name.items() if classify(checkpoint.layout, name) is Kind.VISION]
    expected = _expected_shapes(params)
    tensors: dict[str, DecoderTensor] = {}
    for name, stored in by_name.items():
        kind = classify(checkpoint.layout, name)
        if kind is Kind.UNKNOWN:
            raise CheckpointError(str(stored.path), "unknown tensor", "is this Mistral Medium 3.5?", stored.name)
        if kind is Kind.TEXT:
            tensor = _decoder_tensor(checkpoint, params, name, scales)
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


def _decoder_tensor(checkpoint: Checkpoint, params: Hyperparameters, name: str, scales: WeightScales) -> DecoderTensor:
    stored, module = scales.by_name[name], name.removesuffix(".weight")
    gguf_name = f"{gguf_module(checkpoint.layout, module)}.weight"
    num_heads = num_heads_to_permute(checkpoint.layout, gguf_name, params.n_head, params.n_head_kv)
    return DecoderTensor(gguf_name, stored, scales.of(stored, module), num_heads)
