"""The first computation, done before anybody waits for it."""

from __future__ import annotations

from mm35local.engine.backend import Backend, Chunk
from mm35local.types import SamplingParams

_REQUEST_ID = 0
"""The client counts from 1; a Shutdown interrupts this one as any other."""
_TOKEN_ID = 1


def warm_up(backend: Backend, *, n_ctx: int, n_batch: int, is_on_gpu: bool) -> None:
    """Compute text as large as steps get, and forget it.

    On cards a full micro-batch: kernels are loaded and scratch memory is taken now, and what is short fails now. On
    the CPU one row, which reads all weights of the mapped file: its buffers exist already, and a full micro-batch of
    a large model would take minutes. Raises DecodeFailed, also when a Shutdown came.
    """
    num_rows = min(n_batch, n_ctx) if is_on_gpu else 1
    _compute(backend, num_rows)
    if num_rows > 1:
        _compute(backend, 1)  # single rows have kernels of their own


def _compute(backend: Backend, num_rows: int) -> None:
    tokens = [_TOKEN_ID % backend.n_vocab] * num_rows
    backend.open(_REQUEST_ID, SamplingParams(temperature=0), tokens)
    try:
        backend.compute([Chunk(_REQUEST_ID, slot=0, start=0, token_ids=tokens, wants_token=True)])
    finally:
        backend.close(_REQUEST_ID)
        backend.trim(0, 0)
