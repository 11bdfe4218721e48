"""How likely the words of an answer were, told in text: the engine knows ids only."""

from __future__ import annotations

from dataclasses import dataclass

from mm35local.chat.vocabulary import Vocabulary
from mm35local.types import TokenLogprobs


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """`raw` are the token's own bytes, perhaps part of a character; a control token's are its spelling."""

    raw: bytes
    logprob: float
    """Natural logarithm of its probability."""
    top: tuple[ScoredToken, ...] = ()
    """The likeliest tokens at this place, best first."""

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Scores:
    """Of the tokens of plain text that a step brought; thinking and calls have none."""

    tokens: tuple[ScoredToken, ...]


def scored(token_id: int, logprobs: TokenLogprobs, vocabulary: Vocabulary) -> ScoredToken:
    top = tuple(ScoredToken(_spelt(id_, vocabulary), logprob) for id_, logprob in logprobs.top)
    return ScoredToken(_spelt(token_id, vocabulary), logprobs.logprob, top)


def _spelt(token_id: int, vocabulary: Vocabulary) -> bytes:
    return vocabulary.token_bytes(token_id) or vocabulary.tokens[token_id].encode()
