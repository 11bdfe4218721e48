"""The shared words of the house: what is asked of the engine and what it says at the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_LOGPROBS = 20
"""How many of the likeliest tokens may come with each token."""


class FinishReason(StrEnum):
    """Why a generation ended without an error."""

    STOP = "stop"
    """An end-of-generation token came."""
    LENGTH = "length"
    """`max_tokens` or the context was used up."""
    TOOL_CALLS = "tool_calls"
    """The answer calls tools. The engine, which knows ids only, never says this; `chat.turn` does."""
    CANCELLED = "cancelled"
    """The caller went away, or found a stop string."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the tokens of an answer may be, in llguidance's Lark; control tokens are written as ids, `<[9]>`."""

    lark: str
    is_required: bool = True
    """False: an answer goes on unconstrained where the grammar cannot be followed any more."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to stop. Defaults mean "off" everywhere but `temperature`."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """None draws a fresh one per request."""
    max_tokens: int | None = None
    """None generates until the context is full."""
    ignore_eos: bool = False
    """For benchmarks: end-of-generation tokens do not stop."""
    grammar: Grammar | None = None
    """None: every token may come."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(id, what is added to its logit), before everything else, greedy choice included."""
    num_logprobs: int | None = None
    """None: no log-probabilities. Else each token comes with its own and those of so many of the likeliest."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine continues. Ids are the model's own; the engine never sees text."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely a token was: natural logarithms, by the model's logits alone and what its grammar let come.

    Penalties, biases and the temperature are the sampler's business and do not show here.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """(id, logprob) of the likeliest tokens, best first; fewer where a grammar let fewer come."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one finished request. `num_cached_tokens` of the prompt were not computed again."""

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int = 0
