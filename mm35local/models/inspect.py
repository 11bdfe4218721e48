"""What a GGUF file says about itself, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import ModelFileError
from mm35local.models.faults import find_faults
from mm35local.models.gguf_header import GgufHeader, check_data, parse_header

_PROJECTOR = "clip"
_IMG_BREAK = "v.token_embd.img_break"
_REPAIR = "; mm35 corrects it while loading, mm35 repair does in the file"


@dataclass(frozen=True, slots=True)
class TypeShare:
    """All tensors of one ggml type."""

    type_name: str
    num_tensors: int
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    header: GgufHeader
    shares: tuple[TypeShare, ...]
    """Largest first."""
    warnings: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        return sum(share.num_parameters for share in self.shares)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.header.tensor_bytes / self.num_parameters if self.num_parameters else 0.0


def inspect_file(path: Path) -> Inspection:
    """Raises ModelFileError only where no header can be read; damage behind it becomes a warning."""
    header = parse_header(path)
    warnings = [f"{fault.key} is {fault.found}, expected {fault.right}: {fault.effect}" + _REPAIR
                for fault in find_faults(header)]  # fmt: skip
    warnings += _projector_problems(header) if header.architecture == _PROJECTOR else _model_problems(header)
    warnings += _data_problems(header)
    return Inspection(header, _shares(header), tuple(warnings))


def _shares(header: GgufHeader) -> tuple[TypeShare, ...]:
    by_type: dict[str, TypeShare] = {}
    for tensor in header.tensors:
        share = by_type.get(tensor.type_name, TypeShare(tensor.type_name, 0, 0, 0))
        by_type[tensor.type_name] = TypeShare(
            share.type_name,
            share.num_tensors + 1,
            share.num_parameters + math.prod(tensor.shape),
            share.num_bytes + tensor.num_bytes,
        )
    return tuple(sorted(by_type.values(), key=lambda share: -share.num_bytes))


def _model_problems(header: GgufHeader) -> list[str]:
    metadata, problems = header.metadata, []
    if not header.tensors:
        problems.append("it has no tensors")
    if "tokenizer.ggml.tokens" not in metadata and not metadata.get("split.no"):
        problems.append("it has no vocabulary, so it cannot stand alone")
    elif not metadata.get("tokenizer.chat_template") and not metadata.get("split.no"):
        problems.append("it has no chat template: conversations are spelled by mm35's own rules or not at all")
    return problems


def _projector_problems(header: GgufHeader) -> list[str]:
    if not header.tensors:
        return ["it is an empty projector: the converter that wrote it lost all tensors; write one with --mmproj f16"]
    names = {tensor.name for tensor in header.tensors}
    if header.metadata.get("clip.projector_type") == "pixtral" and _IMG_BREAK not in names:
        return [f"it lacks {_IMG_BREAK}, the row that stands behind each line of an image; write it anew"]
    return []


def _data_problems(header: GgufHeader) -> list[str]:
    try:
        check_data(header)
    except ModelFileError as error:
        return [error.problem]
    return []
