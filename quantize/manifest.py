"""NAME.manifest.json beside an output: its files and tensors with their SHA-256, and which conversion made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mm35local.errors import CheckpointError
from quantize.durable import write_aside
from quantize.json_file import read_object

_FORMAT = 1


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)
    format: int = _FORMAT
    conversion: str
    """Fingerprint of source, recipe and converter: the same conversion gives the same bytes."""
    quant: str
    files: tuple[FileEntry, ...]
    tensors: Mapping[str, str]


def write_manifest(path: Path, manifest: Manifest) -> None:
    write_aside(path, manifest.model_dump_json(indent=2).encode() + b"\n")


def read_manifest(path: Path) -> Manifest | None:
    """None if there is none that this version understands."""
    try:
        manifest = Manifest.model_validate(read_object(path))
    except (CheckpointError, ValidationError):
        return None
    return manifest if manifest.format == _FORMAT else None
