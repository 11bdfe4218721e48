"""How many prompt tokens and drafts a step may take while answers stream: measured, so that streams keep their pace.

A step of n streams costs s(n) seconds, each draft d and each prompt token c more. The streams would see a gap of s(n)
alone; with others beside them it may grow to SLOWDOWN * s(n), which leaves (SLOWDOWN - 1) * s(n) seconds: at least half
of them for prompts, the rest for as many drafts as lately were worth computing. A prompt may also let it grow to the
time for which tokens of quick steps are held: nobody sees that. Pure: whoever computes tells the seconds.

Where no s of about so many streams was measured lately, two steps go without prompts and drafts and measure it: on a
server that always has a prompt to compute, answers grow deep and streams come and go, and no step would be plain.

On a card a prompt's tokens cost least beside the streams: weights are read once for all. On a CPU they may cost twice
as much there as in a step of their own of whole blocks, the rows that the attention kernel works on together: fewer
are computed one by one, and a block in which each row looks at other cells is compared with all of them. Both are
measured; where whole blocks apart are cheaper, and no long break, short prompts and streams take turns. A long prompt
would stop the streams again and again.

Beside streams, too, a block filled with a prompt's tokens may take little longer than a few of them. Prompts get whole
blocks wherever those keep the pace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mm35local.engine.filling import BLOCK
from mm35local.engine.outbox import HOLD_SECONDS

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
MOST_APART = 4.0
"""Blocks apart may take so many times s(n) ..."""
UNNOTICED_SECONDS = 0.1
"""... or so long, which a reader takes for no break."""
PLAIN_SHARE = 0.2
"""Of what a step with a prompt took, in plain steps behind it, where those are so quick that it took longer than
SLOWDOWN of them: streams get several tokens for each block of a prompt, which comes little later for it."""
MIN_GAIN = 1.1
"""A token must cost so much more beside streams than apart before they take turns."""
LEAST_SHARE = 0.01
"""Rows beside the streams take at least so much of a step: one that was quicker than expected proves no row free."""


@dataclass(slots=True)
class _Alone:
    """What a step of some streams takes."""

    seconds: float
    measured_at: int
    """In steps."""
    num_probes: int = 1


@dataclass(slots=True)
class _Token:
    """What a prompt token takes, or a draft."""

    seconds: float
    measured_at: int


@dataclass(frozen=True, slots=True)
class PromptShare:
    """Prompt tokens of a step. `is_apart`: they are whole blocks, and the streams wait for the next step."""

    num_tokens: int
    is_apart: bool = False


class Pace:
    def __init__(self) -> None:
        self._alone: dict[int, _Alone] = {}
        """s(n) by n."""
        self._num_steps = 0
        self._beside: _Token | None = None
        """c beside streams."""
        self._apart: dict[int, _Token] = {}
        """c in steps without any, by their blocks; one that is begun counts as whole."""
        self._owed = 0.0
        """Seconds of plain steps to come before the next prompt tokens."""
        self._was_apart = False
        """Had the last step no streams?"""
        self._draft: _Token | None = None
        """d."""
        self._num_drafts = 0.0
        """Drafts of a step, lately."""

    def observe(self, num_streams: int, num_drafts: int, num_prompt_rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self._num_steps += 1
        self._was_apart = not num_streams
        if num_streams:
            self._num_drafts += SMOOTHING * (num_drafts - self._num_drafts)
            self._owed = PLAIN_SHARE * min(seconds, HOLD_SECONDS) if num_prompt_rows else self._owed - seconds
        if num_prompt_rows and self._draft is not None:
            self._draft.measured_at += 1  # no such step tells what a draft takes
        if not num_drafts and not num_prompt_rows:
            self._observe_alone(num_streams, seconds)
            return
        more, least = seconds - (self._seconds_alone(num_streams) or 0.0 if num_streams else 0.0), LEAST_SHARE * seconds
        if not num_prompt_rows:
            self._draft = self._observed(self._draft, max(least, more) / num_drafts)
            return
        each = max(least, more - num_drafts * (self._draft_seconds or 0.0)) / num_prompt_rows
        if num_streams:
            self._beside = self._observed(self._beside, each)
        elif num_prompt_rows >= BLOCK:
            num_blocks = -(-num_prompt_rows // BLOCK)
            self._apart[num_blocks] = self._observed(self._apart.get(num_blocks), seconds / (num_blocks * BLOCK))

    def prompt_share(
        self, num_streams: int, n_batch: int, *, is_short: bool = False, block_seconds: Sequence[float] = ()
    ) -> PromptShare:
        """Prompt tokens for the next step, where `num_streams` answers go on; `is_short`: it may be the prompt's alone.

        `block_seconds`: what 1, 2, ... whole blocks are expected to take, streams and all.

        At least one, so that none starves, but for the steps that measure what the streams take alone, those that are
        the streams' turn, and those that are owed them.
        """
        if not num_streams:
            return PromptShare(n_batch)
        if not self._knows(num_streams):
            return PromptShare(0)
        room = max(n_batch - num_streams, 0)
        if self._beside is None or not self._is_fresh(self._beside):
            return PromptShare(min(FIRST_ROWS, room))
        alone, beside = self._seconds_alone(num_streams) or 0.0, self._beside.seconds
        most_apart = max(MOST_APART * alone, UNNOTICED_SECONDS) if is_short else 0.0
        if num_apart := self._tokens_apart(most_apart, n_batch, beside / MIN_GAIN):
            return PromptShare(0) if self._was_apart else PromptShare(num_apart, is_apart=True)
        return PromptShare(self._tokens_beside(alone, beside, num_streams, room, block_seconds))

    def _tokens_beside(
        self, alone: float, beside: float, num_streams: int, room: int, block_seconds: Sequence[float]
    ) -> int:
        """In whole blocks, where there is time for any: they take little longer than a few tokens."""
        is_quick = SLOWDOWN * alone < HOLD_SECONDS
        if is_quick and self._owed >= alone:
            return 0
        num_blocks = sum(seconds <= max(SLOWDOWN * alone, HOLD_SECONDS) for seconds in block_seconds)
        if num_blocks * BLOCK > num_streams:
            return num_blocks * BLOCK - num_streams
        spare = max((SLOWDOWN - 1) * alone, HOLD_SECONDS - alone)
        spare -= min(self._num_drafts * (self._draft_seconds or 0.0), spare / 2)
        return _affordable(spare, beside, room, fewest=1)

    def prompt_seconds(self, num_rows: int) -> float:
        """What a step of so many prompt tokens and no streams is expected to take; infinite while unknown."""
        num_blocks = max(1, -(-num_rows // BLOCK))
        each = self._seconds_apart(num_blocks)
        return math.inf if each is None else num_blocks * BLOCK * each

    def draft_budget(self, num_streams: int, num_prompt_rows: int, room: int) -> int:
        """Drafts for the next step, `room` at most; a stream that has the step for itself sets its own pace."""
        if num_streams and not self._knows(num_streams):
            return 0
        if num_streams + num_prompt_rows <= 1:
            return room
        spare = self._spare(num_streams)
        if spare is not None and num_prompt_rows:
            spare = max(spare / 2, spare - num_prompt_rows * (self._beside.seconds if self._beside else 0.0))
        return _affordable(spare, self._draft_seconds, room, fewest=0)

    def _tokens_apart(self, seconds: float, room: int, most_each: float) -> int:
        """Of the most whole blocks that there is time for; 0 if for none, or if a token took more than `most_each`."""
        for num_blocks in range(room // BLOCK, 0, -1):
            each = self._seconds_apart(num_blocks)
            if each is not None and each <= most_each and num_blocks * BLOCK * each <= seconds:
                return num_blocks * BLOCK
        return 0

    def _seconds_apart(self, num_blocks: int) -> float | None:
        """c in a step of so many blocks, or of the nearest number, of those measured lately if there are any."""
        known = {n: token for n, token in self._apart.items() if self._is_fresh(token)} or self._apart
        nearest = min(known, key=lambda n: abs(n - num_blocks), default=None)
        return None if nearest is None else known[nearest].seconds

    def _observed(self, known: _Token | None, seconds: float) -> _Token:
        fresh = known.seconds if known is not None and self._is_fresh(known) else None
        return _Token(_smooth(fresh, seconds), self._num_steps)

    @property
    def _draft_seconds(self) -> float | None:
        """d, where it was measured lately: what was dear once is tried again."""
        return self._draft.seconds if self._draft is not None and self._is_fresh(self._draft) else None

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

    def _is_fresh(self, known: _Alone | _Token) -> bool:
        return self._num_steps - known.measured_at <= NUM_FRESH

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


def _smooth(known: float | None, seconds: float) -> float:
    if known is None:
        return seconds
    return known + SMOOTHING * (min(seconds, MOST_SURPRISE * known) - known)
