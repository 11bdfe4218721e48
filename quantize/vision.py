"""The projector GGUF ("mmproj"): the vision tower, the patch merger and the adapter, as libmtmd loads them.

F16 is the default: ggml's F16 products keep more of these weights than its BF16 ones, and Q8_0 halves the file.
"""

from __future__ import annotations

from pathlib import Path

from mm35local.errors import UsageError
from mm35local.native import quant
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.decoder import Decoder
from quantize.fingerprint import fingerprint
from quantize.gguf_file import TensorSpec, lay_out
from quantize.job import Job
from quantize.make import ConvertedFile, make
from quantize.metadata import Metadata, provenance
from quantize.model_card import ModelCard, read_model_card
from quantize.output import PlannedFile, PlannedOutput
from quantize.projector import ProjectorTensor, collect_projector
from quantize.recipe import FTYPES
from quantize.vision_config import VisionParams, read_vision_params
from quantize.vocabulary import read_special_id
from quantize.work import OnProgress

ARCHITECTURE = "clip"
_F32, _F16, _Q8_0, _BF16 = 0, 1, 8, 30
_TYPES = {"F16": _F16, "BF16": _BF16, "Q8_0": _Q8_0}
_Q8_0_BLOCK = 32
_KEPT_WHOLE = ("v.patch_embd.weight", "mm.patch_merger.weight")
"""libmtmd unfolds before these two: it wants F16 or F32 there."""
_RMS_NORM_EPS = 1e-5
"""In no config: a constant of Pixtral's code, the projector's norm included."""
_IMAGE_MEAN = [0.48145466, 0.4578275, 0.40821073]
_IMAGE_STD = [0.26862954, 0.26130258, 0.27577711]
"""Per channel of RGB in 0..1, as mistral-common's DATASET_MEAN and DATASET_STD."""


def parse_mmproj_type(name: str) -> str:
    """The canonical name. Raises UsageError for one that projectors are not written in."""
    if name.upper() not in _TYPES:
        raise UsageError(f"unknown projector type {name!r}", f"known: {', '.join(_TYPES)}")
    return name.upper()


def plan_mmproj(checkpoint: Checkpoint, out_dir: Path, type_name: str) -> Job:
    """Check config, names and shapes and lay the file out; writes nothing. Raises UsageError or CheckpointError."""
    type_name = parse_mmproj_type(type_name)
    params = read_vision_params(checkpoint)
    img_break_id = read_special_id(checkpoint.folder / "tekken.json", "[IMG_BREAK]")
    tensors = collect_projector(checkpoint, params, img_break_id)
    types = tuple(_type_of(tensor, _TYPES[type_name]) for tensor in tensors)
    specs = [
        TensorSpec(tensor.gguf_name, tensor.shape, kind, quant.row_bytes(kind, tensor.shape[-1]))
        for tensor, kind in zip(tensors, types, strict=True)
    ]
    card = read_model_card(checkpoint.folder)
    stem = out_dir / f"{card.slug}-mmproj-{type_name}"
    layout = lay_out(ARCHITECTURE, _metadata(params, card, type_name), specs)
    source = Decoder(tuple(tensor.source for tensor in tensors), 0, 0)
    file = PlannedFile(stem.with_name(stem.name + ".gguf"), layout, 0)
    names = tuple(spec.name for spec in specs)
    return Job(source, (PlannedOutput(type_name, stem, (file,), names, types, fingerprint(source, [layout.header])),))


def write_mmproj(
    source: Path,
    out_dir: Path,
    type_name: str = "F16",
    *,
    force: bool = False,
    num_threads: int = 0,
    on_progress: OnProgress | None = None,
) -> ConvertedFile:
    """Write `<model>-mmproj-<TYPE>.gguf` into `out_dir` (made if absent) from a checkpoint folder.

    Goes on, keeps and fails as `make` does. Raises UsageError, CheckpointError or ConversionError.
    """
    job = plan_mmproj(open_checkpoint(source), out_dir, type_name)
    (file,) = make([job], force=force, num_threads=num_threads, on_progress=on_progress)
    return file


def _type_of(tensor: ProjectorTensor, wanted: int) -> int:
    if len(tensor.shape) == 1:
        return _F32
    if tensor.gguf_name in _KEPT_WHOLE:
        return _F16 if wanted == _F16 else _F32
    return _F16 if wanted == _Q8_0 and tensor.shape[-1] % _Q8_0_BLOCK else wanted


def _metadata(params: VisionParams, card: ModelCard, type_name: str) -> Metadata:
    return {
        **provenance(card, "mmproj"),
        "general.file_type": FTYPES[type_name],
        "mm35local.recipe": f"--mmproj {type_name}",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "pixtral",
        "clip.use_silu": True,
        "clip.vision.image_size": params.image_size,
        "clip.vision.patch_size": params.patch_size,
        "clip.vision.spatial_merge_size": params.merge_size,
        "clip.vision.embedding_length": params.n_embd,
        "clip.vision.feed_forward_length": params.n_ff,
        "clip.vision.block_count": params.num_layers,
        "clip.vision.attention.head_count": params.n_head,
        "clip.vision.attention.layer_norm_epsilon": _RMS_NORM_EPS,
        "clip.vision.projection_dim": params.n_embd_text,
        "clip.vision.image_mean": _IMAGE_MEAN,
        "clip.vision.image_std": _IMAGE_STD,
        "clip.rope.freq_base": 10_000.0,
    }
