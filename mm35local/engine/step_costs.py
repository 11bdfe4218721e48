"""How long a step takes by the rows in it, as measured: what more rows cost differs a hundredfold between machines.

A step of n rows costs f(n) * s seconds: f is learnt for each n apart, and s, how slow steps are altogether, from all of
them. A machine gets busy and conversations grow deep between two measurements of the same n; what many rows cost beside
few must not look different for it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

SMOOTHING = 0.25
SHARED = 0.3
"""Where a step took r times what was expected, r ** SHARED of it is taken for the machine's or the depth's, which steps
of all sizes feel."""
_MOST_SURPRISE = 2.0
_LEAST_SECONDS = 1e-9
NUM_FRESH = 256
"""A measurement counts for that many steps: machines get busy and idle again, contexts grow."""
REACH = 4
"""Costs are foretold up to that many times the rows that were measured: so more rows get measured."""
_EXACT_ROWS = 64


@dataclass(slots=True)
class _Cost:
    seconds: float
    """f(n)."""
    measured_at: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A step of up to `num_rows` takes no longer than this, for fillers make a whole block of it (see `filling`)."""

    num_rows: int
    seconds: float
    row_seconds: float
    """What each more row of a step takes that is not filled."""


class StepCosts:
    """Interpolates between the row counts that came up lately, and goes straight on behind them."""

    def __init__(self) -> None:
        self._costs: dict[int, _Cost] = {}
        self._slowness = 1.0
        """s."""
        self._num_steps = 0

    def record(self, num_rows: int, seconds: float) -> None:
        """One step took so long. A single slow one (the first of its kind, a busy machine) counts little."""
        self._num_steps += 1
        seconds = max(seconds, _LEAST_SECONDS) / self._slowness
        bucket = _bucket(num_rows)
        cost = self._costs.get(bucket)
        if cost is None or self._is_stale(cost):
            self._costs[bucket] = _Cost(seconds, self._num_steps)
            return
        surprise = min(max(seconds / cost.seconds, 1 / _MOST_SURPRISE), _MOST_SURPRISE)
        self._slowness *= surprise**SHARED
        cost.seconds *= 1 + SMOOTHING * (surprise ** (1 - SHARED) - 1)
        cost.measured_at = self._num_steps
        if not 1 / _MOST_SURPRISE <= self._slowness <= _MOST_SURPRISE:
            self._settle()

    def _settle(self) -> None:
        """Into all f(n) what s has become: noise moves the two apart, step by step, until one of them is no number."""
        for cost in self._costs.values():
            cost.seconds *= self._slowness
        self._slowness = 1.0

    def knows(self, num_rows: int) -> bool:
        """Was a step of so many rows measured lately?"""
        cost = self._costs.get(_bucket(num_rows))
        return cost is not None and not self._is_stale(cost)

    def estimates(self, num_rows: int, num_more: int, filled: Filled | None = None) -> list[float]:
        """Seconds of steps of num_rows, num_rows + 1, ... num_rows + num_more rows; fewer, where nobody can know.

        `filled`: what more rows take up to a whole block, and the block: of what was measured some was filled and some
        was not, so that nothing can be told between two of those. Before anything was measured, a step takes a second.
        """
        known = sorted(rows for rows, cost in self._costs.items() if not self._is_stale(cost))
        if not known:
            return [1.0] * (num_more + 1)
        filled = filled or Filled(0, 0.0, 0.0)
        last = max(num_rows, min(num_rows + num_more, max(REACH * known[-1], filled.num_rows)))
        plain = self._slowness * self._estimate(num_rows, known)
        in_block = range(num_rows, min(last, filled.num_rows) + 1)
        beyond = range(num_rows + len(in_block), last + 1)
        return [
            *(min(plain + (rows - num_rows) * filled.row_seconds, filled.seconds) for rows in in_block),
            *(self._slowness * self._estimate(rows, known) for rows in beyond),
        ]

    def _estimate(self, num_rows: int, known: list[int]) -> float:
        above = bisect_left(known, num_rows)
        if above == len(known):
            return self._costs[known[-1]].seconds + (num_rows - known[-1]) * self._slope(known)
        if above == 0 or known[above] == num_rows:
            return self._costs[known[above]].seconds
        low, high = known[above - 1], known[above]
        part = (num_rows - low) / (high - low)
        return (1 - part) * self._costs[low].seconds + part * self._costs[high].seconds

    def _slope(self, known: list[int]) -> float:
        """Seconds a row beyond those measured: what a row cost from the fewest to the most, nothing where one is known.

        Free rows would be tried at once wherever drafts are likely, and on a CPU 32 of them take as long as 20 steps.
        """
        fewest, most = known[0], known[-1]
        if fewest == most:
            return 0.0
        return max(0.0, (self._costs[most].seconds - self._costs[fewest].seconds) / (most - fewest))

    def _is_stale(self, cost: _Cost) -> bool:
        return self._num_steps - cost.measured_at > NUM_FRESH


def _bucket(num_rows: int) -> int:
    """Exact for few rows, the power of two above for many."""
    return num_rows if num_rows <= _EXACT_ROWS else 1 << (num_rows - 1).bit_length()
