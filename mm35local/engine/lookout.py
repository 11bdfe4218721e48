"""How often guesses are looked for: at every step, unless looking takes a part of it and lately found nothing.

Beside a step of 30 ms looking costs nothing. Beside one of a millisecond it is what answers without repetitions pay for
those with: there every few steps do, until something is found that is worth computing.
"""

from __future__ import annotations

DEAR = 0.02
"""Looking that takes so large a part of a step costs something."""
MOST_IN_VAIN = 4
"""Looks, before fewer are taken."""
STEPS_BETWEEN = 8
SMOOTHING = 0.1


class Lookout:
    def __init__(self) -> None:
        self._look_seconds = 0.0
        self._step_seconds = 0.0
        self._num_in_vain = 0
        self._num_passed = 0
        """Steps since the last look."""

    def is_due(self) -> bool:
        """Shall this step look?"""
        self._num_passed += 1
        is_dear = self._look_seconds > DEAR * self._step_seconds
        return not is_dear or self._num_in_vain < MOST_IN_VAIN or self._num_passed >= STEPS_BETWEEN

    def looked(self, seconds: float, *, found: bool) -> None:
        """It took so long; `found`: something to compute."""
        self._num_passed = 0
        self._num_in_vain = 0 if found else self._num_in_vain + 1
        self._look_seconds += SMOOTHING * (seconds - self._look_seconds)

    def take(self, seconds: float) -> None:
        """A step took so long."""
        self._step_seconds += SMOOTHING * (seconds - self._step_seconds)
