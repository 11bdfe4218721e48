"""What a draft model takes beside the large one: `engine.draft_model` gives it a context of its own, as long.

It is not cut up, however many cards there are: one holds all of it, or RAM does.
"""

from __future__ import annotations

from pathlib import Path

from mm35local.models import memory
from mm35local.models.geometry import Geometry, from_header
from mm35local.models.gguf_header import read_header

_KV_TYPE = "f16"


def read_draft(path: Path) -> Geometry:
    """Raises ModelFileError if it is no GGUF, or one that contradicts itself."""
    return from_header(read_header(path))


def draft_bytes(
    draft: Geometry | None, n_ctx: int, n_batch: int, num_slots: int, *, flash_attention: bool = True
) -> int:
    """Weights, KV cells and compute buffer; 0 without one."""
    if draft is None:
        return 0
    kv = memory.kv_bytes(draft.shape, _KV_TYPE, n_ctx) * draft.shape.n_layer
    compute = memory.compute_bytes(
        draft.shape, _KV_TYPE, n_ctx, n_batch, flash_attention=flash_attention, n_seq=num_slots
    )
    return draft.num_bytes + kv + compute
