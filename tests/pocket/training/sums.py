"""Sums of two numbers below fifty, answered at once or after thinking digit by digit."""

from __future__ import annotations

from random import Random

from tests.pocket.training.case import Case, Key, Reply, ask

_QUESTIONS = ("What is {} + {}?", "{} + {} = ?", "Add {} and {}.")
_BELOW = 50
_SMALL_SHARE = 0.15
"""Two numbers below ten: 4 % of all pairs, yet the sums that people ask first."""


def sums(rng: Random) -> Case:
    first, second, question = _draw(rng)
    return Case("sums", _key(first, second), (ask(question),), Reply(str(first + second)))


def sums_thinking(rng: Random) -> Case:
    first, second, question = _draw(rng)
    expected = Reply(str(first + second), _thoughts(first, second))
    return Case("sums_thinking", _key(first, second), (ask(question),), expected, effort="high")


def _draw(rng: Random) -> tuple[int, int, str]:
    below = 10 if rng.random() < _SMALL_SHARE else _BELOW
    first, second = rng.randrange(below), rng.randrange(below)
    return first, second, rng.choice(_QUESTIONS).format(first, second)


def _key(first: int, second: int) -> Key:
    """Both orders of a pair are one combination."""
    return min(first, second), max(first, second)


def _thoughts(first: int, second: int) -> str:
    ones = first % 10 + second % 10
    tens = f"{first // 10} + {second // 10} + {ones // 10} = {first // 10 + second // 10 + ones // 10}"
    return f"{first % 10} + {second % 10} = {ones}, {tens}."
