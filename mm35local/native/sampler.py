"""How the next token is chosen from logits: one llama.cpp sampler chain per request, reproducible by its seed."""

from __future__ import annotations

import ctypes
import secrets
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from mm35local.types import SamplingParams

_RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's word for "draw one yourself": never passed on, so that every run can be repeated."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.h's struct llama_token_data."""


class Candidates:
    """All tokens with their logits, as llama.cpp's samplers take them; filled anew for every token, by one thread."""

    def __init__(self, n_vocab: int) -> None:
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._tokens = np.zeros(n_vocab, dtype=_CANDIDATE)
        self._array = llama_cpp.llama_token_data_array()

    def choose(self, chain: int, logits: npt.NDArray[np.float32]) -> int:
        """What a `llama_sampler` chain makes of `logits`, f32[n_vocab], which stay as they are."""
        self._tokens["id"] = self._ids  # samplers sort them
        self._tokens["logit"] = logits
        array = self._array
        array.data = ctypes.cast(self._tokens.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        array.size, array.selected, array.sorted = len(self._tokens), -1, False
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        assert array.selected >= 0, "the last sampler of a chain selects"
        token_id = int(array.data[array.selected].id)
        llama_cpp.llama_sampler_accept(chain, token_id)
        return token_id


class Sampler:
    """Owner of a `llama_sampler` chain: bias, penalties, top_k, top_p, min_p, temperature, draw.

    The repetition penalty looks at the prompt and the answer; presence and frequency at the answer alone, as OpenAI's.
    At temperature 0 without penalties and biases no chain is needed: the arg-max of the logits, the lowest id on a tie.
    """

    def __init__(
        self,
        params: SamplingParams,
        candidates: Candidates,
        *,
        n_vocab: int,
        n_ctx: int,
        prompt: Sequence[int],
        never: Collection[int] = (),
    ) -> None:
        """`n_ctx`: how far back penalties look, in tokens. `never`: ids that are not chosen, whatever else says so."""
        self._candidates = candidates
        self._never = tuple(never)
        self._chain: int | None = None
        stages = [*_bias(params, n_vocab), *_penalties(params, n_vocab, n_ctx, prompt)]
        if params.temperature > 0:
            stages += _draw(params)
        elif stages:
            stages.append(llama_cpp.llama_sampler_init_greedy())
        if stages:
            self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
            for stage in stages:
                llama_cpp.llama_sampler_chain_add(self._chain, stage)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """Choose a token by `logits`, f32[n_vocab], and remember it. Those of `never` get -inf, in place."""
        for token_id in self._never:
            logits[token_id] = -np.inf
        if self._chain is None:
            return int(logits.argmax())
        return self._candidates.choose(self._chain, logits)

    def close(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


def _bias(params: SamplingParams, n_vocab: int) -> list[int]:
    if not params.logit_bias:
        return []
    biases = (llama_cpp.llama_logit_bias * len(params.logit_bias))(*params.logit_bias)
    return [llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), biases)]


def _penalties(params: SamplingParams, n_vocab: int, n_ctx: int, prompt: Sequence[int]) -> list[int]:
    stages: list[int] = []
    if params.repetition_penalty != 1.0:
        stage = llama_cpp.llama_sampler_init_penalties(n_vocab, n_ctx, params.repetition_penalty, 0.0, 0.0)
        for token_id in prompt:
            llama_cpp.llama_sampler_accept(stage, token_id)
        stages.append(stage)
    if params.frequency_penalty or params.presence_penalty:
        stages.append(
            llama_cpp.llama_sampler_init_penalties(
                n_vocab, n_ctx, 1.0, params.frequency_penalty, params.presence_penalty
            )
        )
    return stages


def _draw(params: SamplingParams) -> list[int]:
    stages: list[int] = []
    if params.top_k > 0:
        stages.append(llama_cpp.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1:
        stages.append(llama_cpp.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        stages.append(llama_cpp.llama_sampler_init_min_p(params.min_p, 1))
    seed = secrets.randbits(32) if params.seed is None else params.seed
    stages.append(llama_cpp.llama_sampler_init_temp(params.temperature))
    stages.append(llama_cpp.llama_sampler_init_dist(seed % _RANDOM_SEED))
    return stages
