"""The fields that say how tokens are chosen, the same on every wire; a request overrides the model's defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from mm35local.types import MAX_LOGPROBS, SamplingParams

MAX_INT = 2**30
MAX_CHOICES = 16
MAX_BIASES = 1024
_NUM_SEEDS = 2**32 - 1  # llama.cpp keeps the last 32-bit value for "draw one"


def _token_limit(value: object) -> object:
    """-1 is how llama.cpp's clients write "no limit"."""
    return None if value == -1 else value


def _stop_list(stop: object) -> object:
    """One string or several; empty ones could never end anything sensible."""
    given = [stop] if isinstance(stop, str) else [] if stop is None else stop
    return [item for item in given if item != ""] if isinstance(given, list) else given


def _few_biases(biases: object) -> object:
    """Counted before they are read: an error for each of a million would take a gigabyte."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"expected at most {MAX_BIASES} tokens, found {len(biases)}")
    return biases


TokenLimit = Annotated[int | None, Field(ge=1, le=MAX_INT), BeforeValidator(_token_limit)]
StopList = Annotated[
    tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=16, fail_fast=True), BeforeValidator(_stop_list)
]


TokenId = Annotated[int, Field(ge=0, le=MAX_INT)]
Bias = Annotated[float, Field(ge=-100, le=100)]
NumLogprobs = Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)]


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class StreamFields(BaseModel):
    """Of OpenAI's two older wires; the newer ones have `stream` alone and always tell the usage."""

    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Only asked of streams: an answer in one piece always has it."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class SamplingFields(BaseModel):
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, le=MAX_INT)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    """llama.cpp's name of the same."""
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    logit_bias: Annotated[dict[TokenId, Bias] | None, BeforeValidator(_few_biases)] = None
    """Token id to what is added to its logit."""
    ignore_eos: bool | None = None

    def sampling(self, defaults: SamplingParams, max_tokens: int | None) -> SamplingParams:
        """`defaults` are the model's for this effort."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty or self.repeat_penalty,
            "seed": None if self.seed is None else self.seed % _NUM_SEEDS,
            "logit_bias": tuple(self.logit_bias.items()) if self.logit_bias else None,
            "max_tokens": max_tokens,
            "ignore_eos": self.ignore_eos or None,
        }
        fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(defaults, **fields)
