"""How many prompt tokens a step may take while answers stream: measured, so that streams keep a steady pace.

A step of n streams costs s(n) seconds and each prompt token c more. The streams would see a gap of s(n) alone; with
prompts beside them it may grow to SLOWDOWN * s(n), which leaves (SLOWDOWN - 1) * s(n) / c tokens, but never fewer than
FEWEST_TOKENS, so that prompts get on, too. Pure: whoever computes tells the seconds.
"""

from __future__ import annotations

SLOWDOWN = 3.0
FEWEST_TOKENS = 16
SMOOTHING = 0.2
MOST_SURPRISE = 4.0
"""One measurement counts as at most so many times what was expected: an image, or another program, got in between."""


class Pace:
    def __init__(self) -> None:
        self._stream_seconds: dict[int, float] = {}
        """s(n) by n."""
        self._token_seconds: float | None = None

    def observe(self, num_stream_rows: int, num_prompt_rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        if not num_prompt_rows:
            known = self._stream_seconds.get(num_stream_rows)
            self._stream_seconds[num_stream_rows] = _smooth(known, seconds)
        else:
            alone = self._alone(num_stream_rows) if num_stream_rows else 0.0
            self._token_seconds = _smooth(self._token_seconds, max(0.0, seconds - (alone or 0.0)) / num_prompt_rows)

    def budget(self, num_streams: int, n_batch: int) -> int:
        """Prompt tokens for the next step, beside `num_streams` rows of answers."""
        room = max(n_batch - num_streams, 0)
        if not num_streams:
            return room
        alone, each = self._alone(num_streams), self._token_seconds
        if alone is None or each is None:
            return min(FEWEST_TOKENS, room)
        num_tokens = int((SLOWDOWN - 1) * alone / each) if each > 0 else room
        return min(max(num_tokens, FEWEST_TOKENS), room)

    def _alone(self, num_streams: int) -> float | None:
        """s(n), or that of the nearest number of streams that was measured."""
        nearest = min(self._stream_seconds, key=lambda known: abs(known - num_streams), default=None)
        return None if nearest is None else self._stream_seconds[nearest]


def _smooth(known: float | None, seconds: float) -> float:
    if known is None:
        return seconds
    return known + SMOOTHING * (min(seconds, MOST_SURPRISE * known) - known)
