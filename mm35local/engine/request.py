"""The books of one request: what it asked for, its tokens so far, and how many of them are in the KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mm35local.engine.api import Submit
from mm35local.engine.images import PlacedImage, place_images
from mm35local.engine.prefix_cache import Int32Array
from mm35local.errors import ContextLengthExceeded, RequestError
from mm35local.types import MAX_LOGPROBS, ImageGrid, SamplingParams, Usage


@dataclass(slots=True, eq=False)
class Request:
    """Invariant: 0 <= num_computed <= len(tokens) <= max_total, and without a slot num_computed is 0.

    tokens        p p p p p p a a a        the prompt, then the answer
    num_computed  ^ ^ ^ ^                  in the KV cache
    num_wanted            ^ ^ ^ ^ ^        a step computes some of these; after the last one a token is sampled

    None is wanted of a prompt whose end the backend keeps: what follows is sampled at once.
    """

    request_id: int
    arrival: int
    params: SamplingParams
    tokens: list[int]
    num_prompt_tokens: int
    max_total: int
    """It ends with LENGTH when `tokens` is this long."""
    images: tuple[PlacedImage, ...] = ()
    client: str = ""
    slot: int | None = None
    num_computed: int = 0
    num_cached: int = 0
    """Prompt tokens found in the cache when it first started."""
    is_started: bool = False
    num_drafted: int = 0
    num_accepted: int = 0
    is_looked_up: bool = False
    """Saved states have been searched for its prompt."""
    num_passed_over: int = 0
    """Prompt tokens of others that were computed while this one's could have been."""
    awaited: tuple[int, int] | None = None
    """(request, number of tokens): that one is computing a beginning of this one's prompt."""
    _array: Int32Array = field(default_factory=lambda: np.empty(0, dtype=np.int32))

    @property
    def array(self) -> Int32Array:
        """i32[len(tokens)]: `tokens`, which only grow; a prompt that waits is not converted at every step."""
        if len(self._array) != len(self.tokens):
            self._array = np.array(self.tokens, dtype=np.int32)
        return self._array

    @property
    def num_wanted(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens

    def usage(self) -> Usage:
        return Usage(self.num_prompt_tokens, self.num_generated, self.num_cached, self.num_drafted, self.num_accepted)


def accept(command: Submit, *, arrival: int, n_ctx: int, n_vocab: int, grid: ImageGrid | None = None) -> Request:
    """Open the books of a request. Raises RequestError or ContextLengthExceeded if it can never be served.

    `grid` is what its images must fit, None where the model sees none.
    """
    params, tokens = command.params, list(command.prompt.token_ids)
    if not tokens:
        raise RequestError("the prompt is empty: at least one token is needed", "messages", "empty_prompt")
    images = place_images(tokens, command.prompt.images, grid)
    if max(tokens) >= n_vocab:
        strange = max(tokens)
        raise RequestError(
            f"token id {strange} is not in the vocabulary of {n_vocab}", "messages", "invalid_token", "re-tokenize"
        )
    _check_params(params)
    _check_bias(params, n_vocab)
    if params.ignore_eos and params.grammar is not None:
        raise RequestError("ignore_eos cannot go with a grammar, which says where the answer ends", "ignore_eos")
    if len(tokens) + (params.max_tokens or 1) > n_ctx:
        raise ContextLengthExceeded(len(tokens), params.max_tokens or 0, n_ctx)
    max_total = n_ctx if params.max_tokens is None else len(tokens) + params.max_tokens
    return Request(command.request_id, arrival, params, tokens, len(tokens), max_total, images, command.client)


def _check_params(params: SamplingParams) -> None:
    """Refuse what llama.cpp's samplers would abort on, or turn into noise."""
    limits: tuple[tuple[str, float, float, float], ...] = (
        ("temperature", params.temperature, 0.0, 100.0),
        ("top_p", params.top_p, 0.0, 1.0),
        ("top_k", params.top_k, 0, 1 << 30),
        ("min_p", params.min_p, 0.0, 1.0),
        ("presence_penalty", params.presence_penalty, -100.0, 100.0),
        ("frequency_penalty", params.frequency_penalty, -100.0, 100.0),
        ("repetition_penalty", params.repetition_penalty, 0.01, 100.0),
        ("num_logprobs", params.num_logprobs or 0, 0, MAX_LOGPROBS),
        ("max_tokens", 1 if params.max_tokens is None else params.max_tokens, 1, 1 << 30),
    )
    for name, value, low, high in limits:
        if not (math.isfinite(value) and low <= value <= high):
            raise RequestError(f"{name} is {value}: expected {low} to {high}", name, "out_of_range")


def _check_bias(params: SamplingParams, n_vocab: int) -> None:
    for token_id, bias in params.logit_bias:
        if not (0 <= token_id < n_vocab and math.isfinite(bias)):
            raise RequestError(
                f"logit_bias of token {token_id} is {bias}: expected a finite number for an id below {n_vocab}",
                "logit_bias",
                "out_of_range",
            )
