"""The weights and the vocabulary of one GGUF file in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp

from mm35local.errors import LoadFailed
from mm35local.native.devices import devices, handles
from mm35local.native.library import Library
from mm35local.native.rpc import remote_devices

ProgressCallback = Callable[[float], bool]
"""Gets 0..1 while the weights are read; False stops the load."""


_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
"""llama.h's enum llama_split_mode."""
_LOAD_MODE_NONE = 0
_MAX_DEVICES = 16
"""llama.cpp's own limit."""
_MOST_BYTES = 256
"""Of nearly all tokens."""
_OVERRIDE_FLOAT, _OVERRIDE_STR = 1, 3
"""llama.h's enum llama_model_kv_override_type."""


@dataclass(frozen=True, slots=True)
class Placing:
    """Where the weights go, and which keys of the header are corrected; see `engine.api.EngineConfig`."""

    n_gpu_layers: int = 0
    split: str = "layer"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    overrides: tuple[tuple[str, float | str], ...] = ()
    rpc: tuple[str, ...] = ()
    """host:port of workers whose devices follow this machine's GPUs."""
    use_extra_buffers: bool = False
    """Repack weights for the CPU's own kernels, AMX tiles among them. Only where `engine.cpu_kernels` found them right:
    a bad one ends the process."""
    use_mmap: bool = True
    is_dry: bool = False
    """Read the header only: tensors get no memory, so that a context tells its compute buffers and nothing else."""


class Model:
    """Owner of a `llama_model`. Close its contexts first."""

    def __init__(
        self,
        library: Library,
        path: Path,
        placing: Placing | None = None,
        *,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        """Read `path`; all on the CPU without `placing`.

        Raises LoadFailed with llama.cpp's own reason, also when `on_progress` stopped it, or RpcError.
        """
        placing = placing or Placing()
        params, kept = _model_params(placing)
        if on_progress is not None:
            progress = on_progress
            params.progress_callback = llama_cpp.llama_progress_callback(lambda done, _user_data: progress(done))
        library.forget_errors()
        self._handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        del kept
        if not self._handle:
            raise LoadFailed(str(path), library.reason() or "it gave no reason")
        self._vocab = llama_cpp.llama_model_get_vocab(self._handle)
        self._n_gpu_layers = placing.n_gpu_layers
        self._rpc = placing.rpc
        self.path = path
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self._handle)
        self.n_embd: int = llama_cpp.llama_model_n_embd_inp(self._handle)
        """Width of the embeddings that go in."""
        self.num_bytes: int = llama_cpp.llama_model_size(self._handle)

    @property
    def handle(self) -> int:
        """The `llama_model *`, for the other owners of this room."""
        assert self._handle, "the model is closed"
        return int(self._handle)

    def is_eog(self, token_id: int) -> bool:
        """Does this id end a generation?"""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token_id))

    def eog_ids(self) -> frozenset[int]:
        """All ids that end a generation."""
        return frozenset(token_id for token_id in range(self.n_vocab) if self.is_eog(token_id))

    @property
    def eos_id(self) -> int:
        """The token that ends an answer; -1 where the vocabulary has none."""
        return int(llama_cpp.llama_vocab_eos(self._vocab))

    def token_pieces(self) -> list[bytes]:
        """The bytes that each id stands for, its spelling for control tokens. Takes a tenth of a second or so."""
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        return [self._piece(token_id, buffer, spells_controls=True) for token_id in range(self.n_vocab)]

    def text_of(self, token_id: int) -> bytes:
        """The bytes of text that an id stands for, none for a control token."""
        return self._piece(token_id, ctypes.create_string_buffer(_MOST_BYTES), spells_controls=False)

    def _piece(self, token_id: int, buffer: ctypes.Array[ctypes.c_char], *, spells_controls: bool) -> bytes:
        count = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, len(buffer), 0, spells_controls)
        if count < 0:  # it needs so many bytes
            return self._piece(token_id, ctypes.create_string_buffer(-count), spells_controls=spells_controls)
        return buffer.raw[:count]

    def control_ids(self) -> list[int]:
        """All ids that are no text."""
        return [i for i in range(self.n_vocab) if llama_cpp.llama_vocab_is_control(self._vocab, i)]

    def tokenize(self, text: str) -> list[int]:
        """Ids of `text` as plain text: control tokens are never read from it, none are added.

        A lone surrogate (not encodable) becomes "?".
        """
        data = text.encode("utf-8", "replace")
        ids = np.empty(len(data) + 16, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), pointer, len(ids), False, False)
        assert count >= 0, "a token is at least one byte, so the array is long enough"
        return [int(token_id) for token_id in ids[:count]]

    def device_names(self) -> tuple[str, ...]:
        """The devices that hold the weights, as their makers call them."""
        wanted = {"cpu"} if self._n_gpu_layers == 0 else {"gpu", "igpu"}
        found = devices()
        chosen = [device for device in found if device.kind in wanted]
        if not chosen and not self._rpc:
            chosen = [device for device in found if device.kind == "cpu"]
        return (*(device.description or device.name for device in chosen), *self._rpc)

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_model_free(self._handle)
            self._handle = None


def _model_params(placing: Placing) -> tuple[llama_cpp.llama_model_params, Sequence[object]]:
    """llama.cpp's parameters, and what must live until the model is loaded."""
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = placing.use_extra_buffers
    params.n_gpu_layers = placing.n_gpu_layers
    params.split_mode = _SPLIT_MODES[placing.split]
    params.main_gpu = placing.main_gpu
    if placing.is_dry or not placing.use_mmap:
        params.load_mode = _LOAD_MODE_NONE  # with mmap on, a dry load would abort the process
        params.no_alloc = placing.is_dry
    parts = (ctypes.c_float * llama_cpp.llama_max_devices())(*placing.tensor_split)
    if placing.tensor_split:
        params.tensor_split = parts
    overrides = (llama_cpp.llama_model_kv_override * (len(placing.overrides) + 1))()
    for override, (key, value) in zip(overrides, placing.overrides, strict=False):
        override.key = key.encode()
        override.tag = _OVERRIDE_STR if isinstance(value, str) else _OVERRIDE_FLOAT
        if isinstance(value, str):
            override.value.val_str = value.encode()
        else:
            override.value.val_f64 = value
    if placing.overrides:
        params.kv_overrides = overrides
    chosen = (ctypes.c_void_p * (_MAX_DEVICES + 1))(*_devices(placing.rpc))
    if placing.rpc:
        params.devices = ctypes.cast(chosen, ctypes.c_void_p)
    return params, (parts, overrides, chosen)


def _devices(rpc: Sequence[str]) -> list[int]:
    """This machine's GPUs and then the workers' devices; none where only the first are wanted, llama.cpp's default."""
    remote = [handle for endpoint in rpc for handle in remote_devices(endpoint)]
    return [*handles("gpu", "igpu"), *remote][:_MAX_DEVICES] if remote else []
