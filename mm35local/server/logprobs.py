"""Log-probabilities in OpenAI's words, one for each wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mm35local.chat.scores import ScoredToken, Scores
from mm35local.chat.turn import TurnEvent


class PendingScores:
    """Scores come with their step's tokens, their text perhaps later: the next text takes them along."""

    def __init__(self) -> None:
        self._waiting: list[ScoredToken] = []
        self.all: list[ScoredToken] = []

    def feed(self, event: TurnEvent) -> None:
        if isinstance(event, Scores):
            self._waiting += event.tokens
            self.all += event.tokens

    def take(self) -> list[ScoredToken]:
        taken, self._waiting = self._waiting, []
        return taken


def chat_logprobs(tokens: Sequence[ScoredToken]) -> dict[str, Any] | None:
    """A choice's `logprobs` on the chat wire; None where none were asked for."""
    return {"content": [entry(token) for token in tokens], "refusal": None} if tokens else None


def entry(token: ScoredToken) -> dict[str, Any]:
    """As the chat and the responses wire write a token."""
    return {**_own(token), "top_logprobs": [_own(other) for other in token.top]}


def _own(token: ScoredToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.raw)}


def completion_logprobs(tokens: Sequence[ScoredToken], offset: int = 0) -> dict[str, Any] | None:
    """A choice's `logprobs` on the older wire; `offset`: characters of its text before these tokens."""
    if not tokens:
        return None
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.text: other.logprob for other in reversed(token.top)} for token in tokens],
        "text_offset": list(_offsets(tokens, offset)),
    }


def num_characters(tokens: Iterable[ScoredToken]) -> int:
    """Bytes that begin a character, so that one in several tokens counts once."""
    return sum(byte & 0xC0 != 0x80 for token in tokens for byte in token.raw)


def _offsets(tokens: Iterable[ScoredToken], offset: int) -> Iterable[int]:
    for token in tokens:
        yield offset
        offset += num_characters((token,))
