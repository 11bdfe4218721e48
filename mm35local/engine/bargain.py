"""What drafts brought of what they promised: of many estimates the best one looks better than it is.

The number of drafts is chosen where estimated tokens a second are highest, and that is rather often where a chance or a
cost is estimated wrongly. Where steps are measured on a busy machine this takes more than drafts gain; on a quiet one
they keep their word.
"""

from __future__ import annotations

LEARNING_RATE = 0.1
FORGETTING_RATE = 1 / 512
"""With each step that has no drafts: they are tried again after some hundred, for text and machine have changed."""
_MOST_SURPRISE = 4.0
"""One step counts as at most so many times what was expected."""


class Bargain:
    def __init__(self) -> None:
        self._tokens, self._seconds = 1.0, 1.0
        """What came and what it took, as shares of what was expected."""
        self._promised: tuple[float, float] | None = None
        self._num_tokens = 0
        self._took = 0.0

    @property
    def kept(self) -> float:
        """Tokens a second of steps with drafts, as a share of what was promised lately; 1 before any."""
        return self._tokens / self._seconds

    def promise(self, num_tokens: float, seconds: float) -> None:
        """The next step has drafts, from which so many tokens are expected in so long."""
        self._promised = num_tokens, seconds

    def take(self, seconds: float) -> None:
        """A step took so long."""
        self._took += seconds

    def bring(self, num_tokens: int) -> None:
        """One sequence of the step got so many tokens."""
        self._num_tokens += num_tokens

    def settle(self) -> None:
        """The step is over: learn from it. One that was never timed, or brought nothing, teaches nothing."""
        if self._promised is None:
            self._tokens += FORGETTING_RATE * (1 - self._tokens)
            self._seconds += FORGETTING_RATE * (1 - self._seconds)
        elif self._took and self._num_tokens:
            num_tokens, seconds = self._promised
            self._tokens += LEARNING_RATE * (self._num_tokens / num_tokens - self._tokens)
            self._seconds += LEARNING_RATE * (min(self._took / seconds, _MOST_SURPRISE) - self._seconds)
        self._promised, self._num_tokens, self._took = None, 0, 0.0
