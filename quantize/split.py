"""An output as several files, named and marked as llama.cpp's own gguf-split does: only the first carries the keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mm35local.errors import UsageError
from quantize.gguf_file import SplitPart, TensorSpec, lay_out
from quantize.metadata import Metadata
from quantize.output import PlannedFile

_UNITS = {"M": 10**6, "G": 10**9}
_MAX_FILES = 99_999


def parse_split_size(text: str) -> int:
    """`40G` or `500M` in bytes, as gguf-split reads it. Raises UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,8})([MG])", text.upper(), re.ASCII)
    if match is None:
        raise UsageError(f"cannot read the size {text!r}", "write for example --split-max-size 40G or 500M")
    return int(match[1]) * _UNITS[match[2]]


def plan_files(
    architecture: str, stem: Path, metadata: Metadata, specs: Sequence[TensorSpec], max_bytes: int | None
) -> tuple[PlannedFile, ...]:
    """One file, or as many as it takes to keep the tensors of each below `max_bytes` (a larger tensor stands alone)."""
    starts = _starts(specs, max_bytes) if max_bytes else [0]
    if len(starts) == 1:
        return (PlannedFile(stem.with_name(stem.name + ".gguf"), lay_out(architecture, metadata, specs), 0),)
    if len(starts) > _MAX_FILES:
        raise UsageError(f"that makes {len(starts)} files", "choose a larger --split-max-size")
    files = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(specs)], strict=True)):
        part = SplitPart(number, len(starts), len(specs))
        layout = lay_out(architecture, {} if number else metadata, specs[start:end], part)
        name = f"{stem.name}-{number + 1:05}-of-{len(starts):05}.gguf"
        files.append(PlannedFile(stem.with_name(name), layout, start))
    return tuple(files)


def _starts(specs: Sequence[TensorSpec], max_bytes: int) -> list[int]:
    starts, size = [0], 0
    for index, spec in enumerate(specs):
        if size and size + spec.num_bytes > max_bytes:
            starts.append(index)
            size = 0
        size += spec.num_bytes
    return starts
