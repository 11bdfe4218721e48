"""llama.cpp's own samplers, which ours are held against: here for time, in the tests for what they draw from."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from mm35local.types import SamplingParams

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.h's struct llama_token_data."""


class LlamaSampler:
    """A `llama_sampler` chain with the stages of `params`, in our order."""

    def __init__(self, params: SamplingParams, n_vocab: int, *, prompt: Sequence[int] = ()) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for stage in (*_changes(params, n_vocab, prompt), *_truncations(params)):
            llama_cpp.llama_sampler_chain_add(self._chain, stage)
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._tokens = np.zeros(n_vocab, dtype=_CANDIDATE)
        self._array = llama_cpp.llama_token_data_array()

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """Draw a token by `logits`, f32[n_vocab], and remember it."""
        self._apply(logits)
        assert self._array.selected >= 0, "the last sampler of a chain selects"
        token_id = int(self._array.data[self._array.selected].id)
        self.accept(token_id)
        return token_id

    def probabilities(self, logits: npt.NDArray[np.float32]) -> dict[int, float]:
        """Of every token that may be drawn; at temperature 0 the one that is."""
        self._apply(logits)
        array = self._array
        if not self._tokens["p"].any():
            return {int(array.data[array.selected].id): 1.0}
        return {int(array.data[i].id): float(array.data[i].p) for i in range(array.size) if array.data[i].p > 0}

    def _apply(self, logits: npt.NDArray[np.float32]) -> None:
        tokens, array = self._tokens, self._array
        tokens["id"], tokens["logit"], tokens["p"] = self._ids, logits, 0  # samplers sort them
        array.data = ctypes.cast(tokens.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        array.size, array.selected, array.sorted = len(tokens), -1, False
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))

    def accept(self, token_id: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token_id)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)


def _changes(params: SamplingParams, n_vocab: int, prompt: Sequence[int]) -> list[int]:
    stages = []
    if params.logit_bias:
        biases = (llama_cpp.llama_logit_bias * len(params.logit_bias))(*params.logit_bias)
        stages.append(llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
    if params.repetition_penalty != 1.0:
        stage = llama_cpp.llama_sampler_init_penalties(n_vocab, 4096, params.repetition_penalty, 0.0, 0.0)
        for token_id in prompt:
            llama_cpp.llama_sampler_accept(stage, token_id)
        stages.append(stage)
    if params.frequency_penalty or params.presence_penalty:
        penalties = params.frequency_penalty, params.presence_penalty
        stages.append(llama_cpp.llama_sampler_init_penalties(n_vocab, 4096, 1.0, *penalties))
    return stages


def _truncations(params: SamplingParams) -> list[int]:
    if params.temperature == 0:
        return [llama_cpp.llama_sampler_init_greedy()]
    stages = []
    if params.top_k > 0:
        stages.append(llama_cpp.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1:
        stages.append(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        stages.append(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
    return [
        *stages,
        llama_cpp.llama_sampler_init_temp(params.temperature),
        llama_cpp.llama_sampler_init_dist(1),
    ]
