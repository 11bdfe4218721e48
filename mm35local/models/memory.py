"""Bytes beside the weights: KV cells, compute buffers, and what a CUDA process takes for itself. Pure arithmetic."""

from __future__ import annotations

from mm35local.errors import UsageError
from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.mixes import Shape

MIB = 1 << 20
COMPUTE_RESERVE_BYTES = 768 * MIB
"""For a choice made without a header: compute buffers, CUDA context and the program itself."""
CUDA_CONTEXT_BYTES = 512 * MIB
"""A CUDA context with ggml's kernels loaded, per card. Literature value; not measured by us."""
GPU_RESERVE_BYTES = 256 * MIB
"""Left free on each card: allocator padding and what the estimates miss."""
HOST_RESERVE_BYTES = 256 * MIB
"""The engine's process itself: Python, llama.cpp, logits and batches."""
KV_TYPES = ("f16", "q8_0", "q5_1", "q4_0")
"""From exact to small. llama.cpp rounds the context up to CELL_STEP cells."""
CELL_STEP = 256
_F32, _F16 = 4, 2
_DRAFT_ROWS = 48
"""Rows with logits that a step may have beside one a sequence."""
_BLOCKS = {type_.name.lower(): type_ for type_ in GGML_TYPES.values()}
NUM_PIPELINE_COPIES = 4
"""GGML_SCHED_MAX_COPIES: with layers split over several cards, each graph input exists that often."""


def padded_cells(n_ctx: int) -> int:
    return -(-n_ctx // CELL_STEP) * CELL_STEP


def kv_bytes(shape: Shape, kv_type: str, n_ctx: int) -> int:
    """Keys and values of ONE layer: 2 x cells x KV heads x head_dim elements. Raises UsageError for another type."""
    if kv_type not in KV_TYPES:
        raise UsageError(f"unknown KV type {kv_type!r}", f"known: {', '.join(KV_TYPES)}")
    type_ = _BLOCKS[kv_type]
    num_elements = shape.n_head_kv * shape.head_dim
    if num_elements % type_.block_elements:
        raise UsageError(
            f"KV type {kv_type}: rows of {num_elements} are no multiple of its {type_.block_elements}", "take f16"
        )
    return 2 * padded_cells(n_ctx) * num_elements // type_.block_elements * type_.block_bytes


def num_sequences(num_slots: int) -> int:
    """Of the engine's context: those that run, as many ended ones, and some more, up to llama.cpp's limit."""
    return min(2 * num_slots + 16, 256)


def reserved_rows(n_ctx: int, n_batch: int, n_seq: int) -> int:
    """Rows that llama.cpp reserves its graph for: a micro-batch, rounded up to whole rows a sequence."""
    return -(-min(n_batch, n_ctx) // n_seq) * n_seq


def compute_bytes(
    shape: Shape, kv_type: str, n_ctx: int, n_batch: int, *, flash_attention: bool = True, n_seq: int = 1
) -> int:
    """The compute buffer of one device for micro-batches of `n_batch` and `n_seq` sequences.

    Fitted to what llama.cpp 0.3.36 reserves on the CPU for geometries between 576 x 1536 and 12288 x 57344 (table in
    docs/plan.md). The peak is the FFN: 3 x n_ff + 3 x n_embd + Q, beside the F16 mask; one residual less where K and V
    are rotated for quantising. Exact for n_ff > 2 x n_embd, above the truth below. Without flash attention the peak is
    the scores of all heads. In models with small layers it is the head: n_vocab for each sequence's row and 48 drafts'.
    """
    cells = padded_cells(n_ctx)
    rows = reserved_rows(n_ctx, n_batch, n_seq)
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    is_rotated = kv_type != "f16" and shape.head_dim % 64 == 0  # llama.cpp's Hadamard rotation of quantised KV
    residuals = 2 if is_rotated and n_q == shape.n_embd else 3
    head = _F32 * (min(n_seq + _DRAFT_ROWS, rows) * (shape.n_vocab + 2 * shape.n_embd) + rows * shape.n_embd)
    ffn = rows * _F32 * (3 * shape.n_ff + residuals * shape.n_embd + n_q) + mask_bytes(n_ctx, rows)
    if flash_attention:
        return max(ffn, head)
    scores = cells * rows * _F32 * (shape.n_head + 1)
    return max(ffn, head, scores + rows * _F32 * (3 * shape.n_embd + 2 * n_q + 2 * n_kv))


def mask_bytes(n_ctx: int, rows: int) -> int:
    """The attention mask of flash attention, f16[rows, cells]."""
    return padded_cells(n_ctx) * rows * _F16


def gpu_pool_bytes(shape: Shape, kv_type: str, n_ctx: int, n_batch: int) -> int:
    """ggml-cuda's own scratch: one layer's K and V as F16 for prefill, and the activations as q8_1. From its source."""
    converted = 0 if kv_type == "f16" else kv_bytes(shape, "f16", n_ctx)
    return converted + n_batch * max(shape.n_ff, shape.n_embd) * 36 // 32


def image_bytes(num_patches: int, n_embd: int, n_ff: int) -> int:
    """Compute buffer of the vision tower for one image, with flash attention: its FFN's peak, as for text."""
    return num_patches * _F32 * (3 * n_ff + 4 * n_embd)
