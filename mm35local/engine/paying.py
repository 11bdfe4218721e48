"""A drafter that costs time is asked as long as answers come faster with it: both ways are tried, the better stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mm35local.engine.request import Request
from mm35local.engine.speculation import Draft, Drafter

NUM_TRIAL_STEPS = 12
NUM_STEPS_BETWEEN = 300
"""Then the other way gets a trial again."""
_DECAY = 0.9


@dataclass(slots=True)
class _Rate:
    num_tokens: float = 0.0
    seconds: float = 0.0

    def add(self, num_tokens: float, seconds: float) -> None:
        self.num_tokens = _DECAY * self.num_tokens + num_tokens
        self.seconds = _DECAY * self.seconds + seconds

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds if self.seconds else 0.0


class PayingDrafter:
    """A `Drafter` around another one."""

    def __init__(self, drafter: Drafter, clock: Callable[[], float] = time.monotonic) -> None:
        self._drafter = drafter
        self._clock = clock
        self._rates = {True: _Rate(), False: _Rate()}
        self._num_steps = 0
        self._is_on = True
        self._asked_at = 0.0
        self._lengths: dict[int, int] = {}

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        self._measure(requests)
        self._is_on = self._choose()
        self._num_steps += 1
        return self._drafter.propose(requests, max_drafts) if self._is_on else [Draft(())] * len(requests)

    def close(self, request_id: int) -> None:
        self._lengths.pop(request_id, None)
        self._drafter.close(request_id)

    def _measure(self, requests: Sequence[Request]) -> None:
        """How the requests that were here last time, too, have grown since."""
        now = self._clock()
        grown = [
            len(request.tokens) - self._lengths[request.request_id]
            for request in requests
            if request.request_id in self._lengths
        ]
        if grown:
            self._rates[self._is_on].add(sum(grown) / len(grown), now - self._asked_at)
        self._lengths = {request.request_id: len(request.tokens) for request in requests}
        self._asked_at = now

    def _choose(self) -> bool:
        """First a trial of each way, then the better one, and now and then a trial of the other."""
        step = self._num_steps % NUM_STEPS_BETWEEN
        if self._num_steps < 2 * NUM_TRIAL_STEPS:
            return step < NUM_TRIAL_STEPS
        is_better = self._rates[True].tokens_per_second >= self._rates[False].tokens_per_second
        return not is_better if step < NUM_TRIAL_STEPS else is_better
