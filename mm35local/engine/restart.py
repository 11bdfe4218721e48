"""When a dead worker is started again, and when it is given up. Pure: the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The delay doubles with each death in a row; a worker that was READY for `stable_seconds` starts a new row."""

    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 30.0
    max_deaths: int = 5
    stable_seconds: float = 60.0


class DeathRow:
    """Counts the deaths in a row."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.num_deaths = 0

    def next_delay(self, ready_seconds: float) -> float | None:
        """Seconds to wait after a death, the worker having been READY that long; None: give up."""
        policy = self._policy
        self.num_deaths = 1 if ready_seconds >= policy.stable_seconds else self.num_deaths + 1
        if self.num_deaths >= policy.max_deaths:
            return None
        return min(policy.first_delay_seconds * 2.0 ** (self.num_deaths - 1), policy.max_delay_seconds)
