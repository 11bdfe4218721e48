"""The weights and the vocabulary of one GGUF file in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp

from mm35local.errors import LoadFailed
from mm35local.native.devices import devices
from mm35local.native.library import Library

ProgressCallback = Callable[[float], bool]
"""Gets 0..1 while the weights are read; False stops the load."""


class Model:
    """Owner of a `llama_model`. Close its contexts first."""

    def __init__(
        self, library: Library, path: Path, *, n_gpu_layers: int = 0, on_progress: ProgressCallback | None = None
    ) -> None:
        """Read `path`; a negative `n_gpu_layers` means all.

        Raises LoadFailed with llama.cpp's own reason, also when `on_progress` stopped it.
        """
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        if on_progress is not None:
            progress = on_progress
            params.progress_callback = llama_cpp.llama_progress_callback(lambda done, _user_data: progress(done))
        library.forget_errors()
        self._handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._handle:
            raise LoadFailed(str(path), library.reason() or "it gave no reason")
        self._vocab = llama_cpp.llama_model_get_vocab(self._handle)
        self._n_gpu_layers = n_gpu_layers
        self.path = path
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self._handle)
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
        size = 256
        buffer = ctypes.create_string_buffer(size)
        pieces: list[bytes] = []
        for token_id in range(self.n_vocab):
            count = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, True)
            if count < 0:
                size = -count
                buffer = ctypes.create_string_buffer(size)
                count = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, True)
            pieces.append(buffer.raw[:count])
        return pieces

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
        chosen = [device for device in found if device.kind in wanted] or [d for d in found if d.kind == "cpu"]
        return tuple(device.description or device.name for device in chosen)

    def close(self) -> None:
        if self._handle:
            llama_cpp.llama_model_free(self._handle)
            self._handle = None
