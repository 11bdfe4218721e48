"""Does it fit, and with how much context: bytes against bytes, before anything is loaded.

needed = weights + KV cells + a reserve for compute buffers; GPUs are used when all of it fits there, else RAM.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm35local.errors import DoesNotFit, UsageError
from mm35local.models.gguf_header import GgufHeader
from mm35local.models.gpus import Machine

F16_BYTES = 2
COMPUTE_RESERVE_BYTES = 768 << 20
"""Compute buffers, CUDA context and the program itself; measured at 0.2-0.6 GiB for micro-batches of 512."""
_CTX_STEP = 256
_LEAST_CTX = 2048
_RAM_SHARE = 0.5
"""Of the RAM that is left after the weights, KV may take half: the machine has other programs to run."""
ALL_LAYERS = 999


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How to load one file. `needed_bytes` is to live in GPU memory if `n_gpu_layers`, else in RAM."""

    n_ctx: int
    n_gpu_layers: int
    needed_bytes: int


def kv_bytes_per_token(header: GgufHeader) -> int:
    """F16 keys and values of one token: 2 x layers x KV heads x head_dim x 2 bytes."""
    num_heads = header.number("attention.head_count")
    head_dim = header.metadata.get(f"{header.architecture}.attention.key_length")
    if not isinstance(head_dim, int):
        head_dim = header.number("embedding_length") // max(1, num_heads)
    num_kv_heads = header.number("attention.head_count_kv")
    return 2 * header.number("block_count") * num_kv_heads * head_dim * F16_BYTES


def plan_load(header: GgufHeader, machine: Machine, n_ctx: int | None = None, gpu: bool | None = None) -> LoadPlan:
    """The context and place for `header`'s model.

    `n_ctx` None takes the longest that fits comfortably, at most the model's own. Raises DoesNotFit with the
    bytes, or UsageError for a context that the model was not trained for.
    """
    n_ctx_train = header.number("context_length")
    if n_ctx is not None and not 1 <= n_ctx <= n_ctx_train:
        raise UsageError(f"--ctx {n_ctx}: this model's context is 1 to {n_ctx_train} tokens", "choose one within")
    fixed = header.tensor_bytes + COMPUTE_RESERVE_BYTES
    per_token = kv_bytes_per_token(header)
    least = fixed + (n_ctx or min(_LEAST_CTX, n_ctx_train)) * per_token
    on_gpu = machine.gpu_free_bytes >= least if gpu is None else gpu
    free = machine.gpu_free_bytes if on_gpu else machine.ram_free_bytes
    if least > free:
        raise DoesNotFit(header.path.name, least, free)
    if n_ctx is None:
        share = 1.0 if on_gpu else _RAM_SHARE
        n_ctx = _longest(int((free - fixed) * share) // per_token, n_ctx_train)
    return LoadPlan(n_ctx, ALL_LAYERS if on_gpu else 0, fixed + n_ctx * per_token)


def _longest(num_affordable: int, n_ctx_train: int) -> int:
    stepped = num_affordable // _CTX_STEP * _CTX_STEP
    return min(n_ctx_train, max(min(_LEAST_CTX, n_ctx_train), stepped))
