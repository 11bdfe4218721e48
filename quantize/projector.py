"""Pairs every tensor of a projector GGUF (the vision tower and what leads from it into the decoder) with its source.

Invariant: a `Projector` is complete: nothing missing, doubled, unknown or of another shape than the config says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint, Layout
from quantize.decoder import DecoderTensor, by_canonical_name, llama_cpp_order
from quantize.names import ACTIVATION_SCALES, WEIGHT_SCALES, Kind, classify, gguf_module
from quantize.scales import BlockScales, WeightScales, read_weight_scales
from quantize.shard import StoredTensor
from quantize.vision_config import VisionParams
from quantize.vision_names import vision_module

IMG_BREAK = "v.token_embd.img_break"
_EMBEDDING = "token_embd"


@dataclass(frozen=True, slots=True)
class ProjectorTensor:
    source: DecoderTensor
    """Its `shape` is (rows, row length): the patch convolution is a matrix while it is converted."""
    shape: tuple[int, ...]
    """In the GGUF."""

    @property
    def gguf_name(self) -> str:
        return self.source.gguf_name


def collect_projector(checkpoint: Checkpoint, params: VisionParams, img_break_id: int) -> tuple[ProjectorTensor, ...]:
    """In libmtmd's names. Raises CheckpointError naming the file and tensor at fault."""
    by_name = by_canonical_name(checkpoint)
    scales = read_weight_scales(checkpoint, by_name)
    expected = _expected_shapes(params)
    tensors: dict[str, ProjectorTensor] = {}
    for name, stored in by_name.items():
        if classify(checkpoint.layout, name) is not Kind.VISION:
            continue
        module, _, leaf = name.rpartition(".")
        gguf = vision_module(checkpoint.layout, module)
        if gguf is None or leaf not in ("weight", *WEIGHT_SCALES, *ACTIVATION_SCALES):
            raise CheckpointError(str(stored.path), "unknown tensor", "is this Mistral Medium 3.5?", stored.name)
        if leaf == "weight":
            tensor = _projector_tensor(checkpoint.layout, params, f"{gguf}.weight", stored, scales, module)
            _check_shape(tensor, expected)
            tensors[tensor.gguf_name] = tensor
    tensors[IMG_BREAK] = _img_break(checkpoint, params, scales, img_break_id)
    for gguf_name in expected:
        if gguf_name not in tensors:
            raise CheckpointError(str(checkpoint.folder), f"no shard holds what becomes {gguf_name} in a projector")
    return tuple(sorted(tensors.values(), key=lambda tensor: _file_order(tensor.gguf_name)))


def _file_order(gguf_name: str) -> tuple[int, str]:
    return llama_cpp_order(gguf_name.removeprefix("v."))


def _projector_tensor(
    layout: Layout,
    params: VisionParams,
    gguf_name: str,
    stored: StoredTensor,
    scales: WeightScales,
    module: str,
) -> ProjectorTensor:
    shape = stored.shape
    if len(shape) == 4:
        stored = replace(stored, shape=(shape[0], shape[1] * shape[2] * shape[3]))
    is_half_split = layout is Layout.HF and gguf_name.endswith((".attn_q.weight", ".attn_k.weight"))
    num_heads = params.n_head if is_half_split else 0
    return ProjectorTensor(DecoderTensor(gguf_name, stored, scales.of(stored, module), num_heads), shape)


def _check_shape(tensor: ProjectorTensor, expected: dict[str, tuple[int, ...]]) -> None:
    stored = tensor.source.stored
    if tensor.gguf_name not in expected:
        raise CheckpointError(str(stored.path), "the config has no place for it", tensor=stored.name)
    if tensor.shape != expected[tensor.gguf_name]:
        raise CheckpointError(
            str(stored.path),
            f"expected the shape {list(expected[tensor.gguf_name])}, found {list(tensor.shape)}",
            tensor=stored.name,
        )


def _img_break(checkpoint: Checkpoint, params: VisionParams, scales: WeightScales, token: int) -> ProjectorTensor:
    """The row of [IMG_BREAK] in the text embedding: libmtmd puts it behind each row of patches but the last."""
    modules = [name.removesuffix(".weight") for name in scales.by_name if name.endswith(".weight")]
    module = next((module for module in modules if gguf_module(checkpoint.layout, module) == _EMBEDDING), None)
    if module is None:
        raise CheckpointError(str(checkpoint.folder), "no shard holds the embedding, which has the row of [IMG_BREAK]")
    stored = scales.by_name[f"{module}.weight"]
    if len(stored.shape) != 2 or stored.shape[1] != params.n_embd_text or token >= stored.shape[0]:
        raise CheckpointError(
            str(stored.path), f"expected rows of {params.n_embd_text} with number {token}, found {list(stored.shape)}",
            tensor=stored.name,
        )  # fmt: skip
    row_bytes = stored.num_bytes // stored.shape[0]
    row = replace(stored, shape=(params.n_embd_text,), offset=stored.offset + token * row_bytes, num_bytes=row_bytes)
    scale = scales.of(stored, module)
    scale = scale.of_row(token) if isinstance(scale, BlockScales) else scale
    source = DecoderTensor(IMG_BREAK, row, scale, 0)
    return ProjectorTensor(source, row.shape)


def _expected_shapes(params: VisionParams) -> dict[str, tuple[int, ...]]:
    n_embd, n_ff, n_text, patch = params.n_embd, params.n_ff, params.n_embd_text, params.patch_size
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (n_embd, 3, patch, patch),
        "v.pre_ln.weight": (n_embd,),
        "mm.input_norm.weight": (n_embd,),
        "mm.patch_merger.weight": (n_embd, n_embd * params.merge_size**2),
        "mm.1.weight": (n_text, n_embd),
        "mm.2.weight": (n_text, n_text),
    }
    block: dict[str, tuple[int, ...]] = {
        "ln1": (n_embd,),
        **{f"attn_{part}": (n_embd, n_embd) for part in ("q", "k", "v", "out")},
        "ln2": (n_embd,),
        "ffn_gate": (n_ff, n_embd),
        "ffn_up": (n_ff, n_embd),
        "ffn_down": (n_embd, n_ff),
    }
    for layer in range(params.num_layers):
        shapes.update((f"v.blk.{layer}.{part}.weight", shape) for part, shape in block.items())
    return shapes
