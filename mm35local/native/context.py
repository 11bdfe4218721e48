"""The KV cells and the compute buffers of one model: sequences share the cells, a decode adds to many at once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from mm35local.errors import LoadFailed
from mm35local.native.batch import Batch, EmbeddingBatch
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.native.recycled import RecycledMemory

NO_KV_SLOT = 1
"""llama_decode found no cells for the batch; nothing was changed."""
MAX_DRAFT_ROWS = 48
"""Each has logits, 0.5 MiB at a vocabulary of 131,072."""
ABORTED = 2
"""The abort callback stopped llama_decode; what was computed of the batch may be in the cells."""


MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ of llama.cpp."""

_NEVER = llama_cpp.ggml_abort_callback()
"""The null pointer: nobody is asked."""
_KV_TYPES = {"f16": 1, "q4_0": 2, "q5_1": 7, "q8_0": 8}
"""ggml.h's enum ggml_type."""


_address_of_logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", llama_cpp._lib)
)
"""The binding's own makes a pointer object of what it returns, for every token."""


@dataclass(frozen=True, slots=True)
class CellFormat:
    """How keys and values are kept; all types but f16 need flash attention."""

    kv_type: str = "f16"
    flash_attention: bool = True


class Context:
    """Owner of a `llama_context` with one unified KV cache for `num_sequences` sequences."""

    def __init__(
        self,
        library: Library,
        model: Model,
        *,
        n_ctx: int,
        num_sequences: int,
        n_batch: int,
        num_threads: int,
        num_batch_threads: int,
        cells: CellFormat | None = None,
    ) -> None:
        """`num_threads` compute a step of one row, `num_batch_threads` a larger one.

        In a decode as many rows as sequences may ask for logits, and MAX_DRAFT_ROWS more.
        Raises LoadFailed when memory is short.
        """
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_seq_max = num_sequences
        params.kv_unified = True
        params.n_batch = params.n_ubatch = n_batch
        params.n_outputs_max = params.n_outputs_max_per_seq = min(num_sequences + MAX_DRAFT_ROWS, n_batch)
        cells = cells or CellFormat()
        params.type_k = params.type_v = _KV_TYPES[cells.kv_type]
        if not cells.flash_attention:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = num_threads
        params.n_threads_batch = num_batch_threads
        library.forget_errors()
        self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            detail = library.reason() or f"no memory for a context of {n_ctx} tokens"
            raise LoadFailed(str(model.path), detail, "try a shorter --ctx")
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._abort_callback = llama_cpp.ggml_abort_callback()
        self._may_abort = False
        self._row_of_logits = ctypes.c_float * model.n_vocab
        self._logits_at: dict[int, npt.NDArray[np.float32]] = {}
        """Views by address: llama.cpp keeps its rows in the same few places."""
        self._states = RecycledMemory()

    @property
    def handle(self) -> int:
        """The `llama_context *`, for the other owners of this room."""
        assert self._handle, "the context is closed"
        return int(self._handle)

    def set_abort_callback(self, should_abort: Callable[[], bool]) -> None:
        """Whom decodes that may abort ask, between the nodes of a graph on the CPU; True ends them with ABORTED."""
        llama_cpp.llama_set_abort_callback(self.handle, _NEVER, None)
        self._may_abort = False
        self._abort_callback = llama_cpp.ggml_abort_callback(lambda _user_data: should_abort())

    def decode(self, batch: Batch | EmbeddingBatch, *, may_abort: bool = False) -> int:
        """Compute the rows and add them to the cells. 0, NO_KV_SLOT, ABORTED, or a negative error.

        `may_abort`: ask the abort callback, some 500 times a decode, which a single row of a small model feels.
        """
        if may_abort is not self._may_abort:
            callback = self._abort_callback if may_abort else _NEVER
            llama_cpp.llama_set_abort_callback(self.handle, callback, None)
            self._may_abort = may_abort
        return int(llama_cpp.llama_decode(self.handle, batch.struct()))

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """The logits of a row that asked for them, f32[n_vocab]: a view, valid until the next decode."""
        address = _address_of_logits(self.handle, row)
        assert address, "the row did not ask for logits"
        view = self._logits_at.get(address)
        if view is None:
            view = np.frombuffer(memoryview(self._row_of_logits.from_address(address)), np.float32)
            self._logits_at[address] = view
        return view

    def seq_rm(self, sequence: int, first: int) -> bool:
        """Free the cells of positions >= `first`. False where the architecture cannot forget a part (recurrent)."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, first, -1))

    def seq_cp(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target`, which must be empty, share the cells of the first `num_tokens` positions of `source`."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def num_positions(self, sequence: int) -> int:
        """How many positions the sequence has come to; 0 when it is empty."""
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def state_bytes(self, sequence: int) -> int:
        """Size of `seq_state`; llama.cpp goes through all cells for it."""
        return int(llama_cpp.llama_state_seq_get_size(self.handle, sequence))

    def seq_state(self, sequence: int, state_bytes: int, num_more_bytes: int = 0) -> npt.NDArray[np.uint8]:
        """A copy of the sequence's cells, in llama.cpp's own format of this version and configuration.

        `state_bytes` is what that method told. Behind the copy `num_more_bytes` are left to the caller.
        """
        state = self._states.take(state_bytes + num_more_bytes)
        pointer = ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        num_bytes = llama_cpp.llama_state_seq_get_data(self.handle, pointer, state_bytes, sequence)
        return state[: num_bytes + num_more_bytes]

    def set_seq_state(self, sequence: int, state: npt.NDArray[np.uint8]) -> bool:
        """Fill `sequence`, which must be empty, with what `seq_state` gave. False if llama.cpp does not take it."""
        pointer = ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
        return bool(llama_cpp.llama_state_seq_set_data(self.handle, pointer, len(state), sequence))

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_free(self._handle)
            self._handle = None
