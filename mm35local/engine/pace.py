"""How many prompt tokens and drafts a step may take while answers stream: measured, so that streams keep their pace.

A step of n streams costs s(n) seconds, each draft d and each prompt token c more. The streams would see a gap of s(n)
alone; with others beside them it may grow to SLOWDOWN * s(n), which leaves (SLOWDOWN - 1) * s(n) seconds: at least half
of them for prompts, the rest for as many drafts as lately were worth computing. Pure: whoever computes tells the
seconds.

Where no s of about so many streams was measured lately, two steps go without prompts and drafts and measure it: on a
server that always has a prompt to compute, answers grow deep and streams come and go, and no step would be plain.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOWDOWN = 3.0
FIRST_ROWS = 16
"""Prompt tokens, or drafts, of a step before anybody knows what they cost."""
SMOOTHING = 0.2
MOST_SURPRISE = 4.0
"""One measurement counts as at most so many times what was expected: an image, or another program, got in between."""
NUM_FRESH = 100
"""Steps for which a measured s(n) counts."""
NUM_PROBES = 2
"""Measurements that s(n) takes; the least counts, for a step gets slow by accident and never quick."""
ALIKE = 2
"""Times as many streams, or as few, take about as long as s(n)."""
LEAST_SHARE = 0.01
"""Rows beside the streams take at least so much of a step: one that was quicker than expected proves no row free."""


@dataclass(slots=True)
class _Alone:
    """What a step of some streams takes."""

    seconds: float
    measured_at: int
    """In steps."""
    num_probes: int = 1


class Pace:
    def __init__(self) -> None:
        self._alone: dict[int, _Alone] = {}
        """s(n) by n."""
        self._num_steps = 0
        self._token_seconds: float | None = None
        self._draft_seconds: float | None = None
        self._num_drafts = 0.0
        """Drafts of a step, lately."""
        self._was_beside = False
        """Were there streams beside the prompt tokens measured last? In a full batch a token costs much less."""

    def observe(self, num_streams: int, num_drafts: int, num_prompt_rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self._num_steps += 1
        if num_streams:
            self._num_drafts += SMOOTHING * (num_drafts - self._num_drafts)
        if not num_drafts and not num_prompt_rows:
            self._observe_alone(num_streams, seconds)
            return
        more, least = seconds - (self._seconds_alone(num_streams) or 0.0 if num_streams else 0.0), LEAST_SHARE * seconds
        if not num_prompt_rows:
            self._draft_seconds = _smooth(self._draft_seconds, max(least, more) / num_drafts)
            return
        each = max(least, more - num_drafts * (self._draft_seconds or 0.0)) / num_prompt_rows
        is_beside = num_streams > 0
        rate = SMOOTHING if is_beside is self._was_beside else 1.0
        self._token_seconds, self._was_beside = _smooth(self._token_seconds, each, rate), is_beside

    def prompt_budget(self, num_streams: int, n_batch: int) -> int:
        """Prompt tokens for the next step, beside `num_streams` rows of answers.

        At least one, so that none starves, but for the steps that measure what the streams take alone.
        """
        room = max(n_batch - num_streams, 0)
        if not num_streams:
            return room
        if not self._knows(num_streams):
            return 0
        spare = self._spare(num_streams)
        reserved = min(self._num_drafts * (self._draft_seconds or 0.0), (spare or 0.0) / 2)
        return _affordable(None if spare is None else spare - reserved, self._token_seconds, room, fewest=1)

    def draft_budget(self, num_streams: int, num_prompt_rows: int, room: int) -> int:
        """Drafts for the next step, `room` at most; a stream that has the step for itself sets its own pace."""
        if num_streams and not self._knows(num_streams):
            return 0
        if num_streams + num_prompt_rows <= 1:
            return room
        spare = self._spare(num_streams)
        if spare is not None and num_prompt_rows:
            spare = max(spare / 2, spare - num_prompt_rows * (self._token_seconds or 0.0))
        return _affordable(spare, self._draft_seconds, room, fewest=0)

    def _spare(self, num_streams: int) -> float | None:
        """Seconds that a step may take beyond what its streams take alone; None if unknown."""
        alone = self._seconds_alone(num_streams)
        return None if alone is None else (SLOWDOWN - 1) * alone

    def _seconds_alone(self, num_streams: int) -> float | None:
        """s(n), or that of the nearest number of streams, of those measured lately if there are any."""
        known = {n: alone for n, alone in self._alone.items() if self._is_fresh(alone)} or self._alone
        nearest = min(known, key=lambda n: abs(n - num_streams), default=None)
        return None if nearest is None else known[nearest].seconds

    def _knows(self, num_streams: int) -> bool:
        """Was s of about so many streams measured lately?"""
        return any(
            self._is_fresh(alone)
            and alone.num_probes >= NUM_PROBES
            and max(n, num_streams) <= ALIKE * min(n, num_streams)
            for n, alone in self._alone.items()
        )

    def _is_fresh(self, alone: _Alone) -> bool:
        return self._num_steps - alone.measured_at <= NUM_FRESH

    def _observe_alone(self, num_streams: int, seconds: float) -> None:
        known = self._alone.get(num_streams)
        if known is None or not self._is_fresh(known):
            self._alone[num_streams] = _Alone(seconds, self._num_steps)
            return
        is_probe = known.num_probes < NUM_PROBES
        known.seconds = min(known.seconds, seconds) if is_probe else _smooth(known.seconds, seconds)
        known.num_probes += is_probe
        known.measured_at = self._num_steps


def _affordable(seconds: float | None, each: float | None, room: int, *, fewest: int) -> int:
    if seconds is None or each is None:
        return min(FIRST_ROWS, room)
    if room * each <= seconds:
        return room
    return min(max(int(seconds / each), fewest), room)


def _smooth(known: float | None, seconds: float, rate: float = SMOOTHING) -> float:
    if known is None:
        return seconds
    return known + rate * (min(seconds, MOST_SURPRISE * known) - known)
