"""NAME.safetensors.head: what the checks need of a shard whose weights are not here, consumed or not fetched yet.

The safetensors header as it was, every scale, and what tells these weights from others: their first bytes, or the hub's
name for the whole shard. With it a conversion that has consumed a shard can still be planned and go on.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mm35local.errors import CheckpointError
from quantize.durable import write_aside
from quantize.json_file import read_object
from quantize.shard import KeptBytes, StoredTensor, parse_tensors

SUFFIX = ".head"
_FORMAT = 1
_AGAIN = "download the shard again"
_NOTE = "what `mm35 quantize --consume` needs of a shard that is not here; keep it until the conversion is done"


@dataclass(frozen=True, slots=True)
class Head:
    path: Path
    """Of the shard."""
    header: bytes
    file_bytes: int
    """Of the shard."""
    kept: KeptBytes
    is_consumed: bool
    """The shard was here, and its weights are in outputs."""

    def tensors(self) -> tuple[StoredTensor, ...]:
        """As `read_shard` gives them, but without weights. Raises CheckpointError, which names the head."""
        try:
            return parse_tensors(self.path, self.header, self.file_bytes, self.kept)
        except CheckpointError as error:
            raise CheckpointError(str(head_path(self.path)), error.problem, _AGAIN, error.tensor) from error


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True)
    note: str = _NOTE
    format: int
    file_bytes: int = Field(ge=0, lt=1 << 63)
    is_consumed: bool
    identity: str
    header: str
    """Each byte as the character of that number, so that any header comes back as it was."""
    kept: Mapping[int, str]
    """Base64 by offset."""


def head_path(shard: Path) -> Path:
    return shard.with_name(shard.name + SUFFIX)


def read_head(shard: Path) -> Head | None:
    """None if there is none. Raises CheckpointError if it is damaged."""
    path = head_path(shard)
    if not path.is_file():
        return None
    try:
        form = _Form.model_validate(read_object(path))
        header = form.header.encode("latin-1")
        spans = {offset: base64.b64decode(text, validate=True) for offset, text in form.kept.items()}
    except ValueError as error:
        raise CheckpointError(str(path), f"damaged: {error!s:.200}", _AGAIN) from error
    if form.format != _FORMAT:
        raise CheckpointError(str(path), f"format {form.format}, expected {_FORMAT}", _AGAIN)
    return Head(shard, header, form.file_bytes, KeptBytes(form.identity, spans), form.is_consumed)


def write_head(head: Head) -> None:
    """Durably. Raises ConversionError."""
    form = _Form(
        format=_FORMAT,
        file_bytes=head.file_bytes,
        is_consumed=head.is_consumed,
        identity=head.kept.identity,
        header=head.header.decode("latin-1"),
        kept={offset: base64.b64encode(span).decode() for offset, span in head.kept.spans.items()},
    )
    write_aside(head_path(head.path), form.model_dump_json(indent=1).encode() + b"\n")
