"""The shared words of the house: what is asked of the engine and what it says at the end."""

from __future__ import annotations

import hashlib
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
    """Tokens that end an answer are never chosen: it goes on to its limit."""
    grammar: Grammar | None = None
    """None: every token may come."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(id, what is added to its logit), before everything else, greedy choice included."""
    num_logprobs: int | None = None
    """None: no log-probabilities. Else each token comes with its own and those of so many of the likeliest."""


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """How a vision tower cuts images up: into cells of `cell` x `cell` pixels, sides of at most `max_side`."""

    cell: int = 28
    """A patch times the spatial merge."""
    max_side: int = 1540

    def cells(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) that an image of this size becomes: mistral-common's formula, to its rounding."""
        ratio = max(height / self.max_side, width / self.max_side)
        if ratio > 1:
            width, height = max(round(width / ratio), 1), max(round(height / ratio), 1)
        return (width - 1) // self.cell + 1, (height - 1) // self.cell + 1

    @property
    def max_cells(self) -> int:
        """Of the largest image."""
        return (self.max_side // self.cell) ** 2


@dataclass(frozen=True, slots=True)
class Image:
    """Pixels in a size that the model's vision tower takes as it is: `rgb` is u8[height, width, 3].

    In a prompt its embeddings stand under negative ids that follow from its content. So books of tokens are books of
    images too: two prompts share a beginning as far as text, and images bit for bit, are the same.
    """

    width: int
    height: int
    rgb: bytes
    num_rows: int
    """Embeddings, one a position: merged patches, and a row end ([IMG_BREAK]) between the rows of them."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of size and pixels."""
        return hashlib.sha256(b"%d x %d:" % (self.width, self.height) + self.rgb).digest()

    @property
    def row_ids(self) -> tuple[int, ...]:
        """`num_rows` ids in -2^31..-1, 31 bits of the content's hash in each: n of them agree by chance once in 2^31n.

        An id depends on the whole image, so another one of the same size has other ids from the first row on.
        """
        bits = hashlib.shake_128(self.digest).digest(4 * self.num_rows)
        return tuple(-1 - (word >> 1) for word in memoryview(bits).cast("I"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine continues. Ids are the model's own; the engine never sees text."""

    token_ids: tuple[int, ...]
    """Negative where an image stands: its `row_ids`, all of them in a row."""
    images: tuple[Image, ...] = ()
    """Each once, in any order."""


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
    num_drafted: int = 0
    """Tokens that were guessed ahead and computed."""
    num_accepted: int = 0
    """Those of them that sampling confirmed; they are part of the completion."""
