"""The worker's mouth: tokens of very quick steps leave together, thirty times a second.

Whoever reads them runs on the cores that the next step computes on: at a thousand tokens a second a message each costs
more than the tokens, and one that tells of a start delays the first token. The first tokens, an end, and whatever else
there is to tell never wait; a start does, where its first step is as quick, and how far a prompt is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from mm35local.engine.api import CellUse, Failed, Finished, Progress, Started, Tokens, WorkerEvent

HOLD_SECONDS = 1 / 30
"""As often as video moves: nobody sees text come more smoothly. No token waits longer, unless the next step is slower
than the last."""
FIRST_TOKENS = 4
"""The first token of an answer leaves at once, and the fourth: the first one may be no text yet, but a part of a
character or of what may be a call."""


class Outbox:
    """Invariant: of each request, events leave in the order in which they were put."""

    def __init__(
        self,
        send: Callable[[Sequence[WorkerEvent]], object],
        clock: Callable[[], float] = time.monotonic,
        make_way: Callable[[], None] = lambda: None,
    ) -> None:
        """`make_way` is called after what somebody waits for was sent, to let it be read before the next step."""
        self._send = send
        self._clock = clock
        self._make_way = make_way
        self._starts: list[WorkerEvent] = []
        self._held: dict[int, Tokens | Progress] = {}
        self._num_left: dict[int, int] = {}
        """Tokens of each request that have left."""
        self._put_at = self._sent_at = clock()

    def put(self, events: Sequence[WorkerEvent], *, may_hold: bool = False) -> None:
        """Send what a step, or the commands before it, brought.

        `may_hold`: another step follows at once: one like this, or one that will not take longer than HOLD_SECONDS.
        """
        now = self._clock()
        seconds, self._put_at = now - self._put_at, now
        if events and may_hold and all(isinstance(event, Started | CellUse) for event in events):
            self._starts += events
            return
        patient = [event for event in events if isinstance(event, Tokens | Progress) and self._may_wait(event)]
        if len(patient) < len(events):
            self._leave([*self._held.values(), *events], now)
            self._make_way()
            return
        self._hold(patient)
        if not may_hold or now + seconds > self._sent_at + HOLD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is held: there is something else to do before the next step."""
        if self._held or self._starts:
            self._leave([*self._held.values()], self._put_at)

    def _may_wait(self, event: Tokens | Progress) -> bool:
        if isinstance(event, Progress):
            return True
        num_left = self._num_left.get(event.request_id, 0)
        held = self._held.get(event.request_id)
        num_now = num_left + len(event.token_ids) + (len(held.token_ids) if isinstance(held, Tokens) else 0)
        return num_left >= FIRST_TOKENS or (num_left > 0 and num_now < FIRST_TOKENS)

    def _hold(self, events: Iterable[Tokens | Progress]) -> None:
        for event in events:
            held = self._held.get(event.request_id)
            if isinstance(event, Tokens) and isinstance(held, Tokens):
                event = _joined(held, event)
            self._held[event.request_id] = event

    def _leave(self, events: Sequence[WorkerEvent], now: float) -> None:
        events = [*self._starts, *events]
        self._starts, self._held = [], {}
        self._sent_at = now
        for event in events:
            if isinstance(event, Tokens):
                self._num_left[event.request_id] = self._num_left.get(event.request_id, 0) + len(event.token_ids)
            elif isinstance(event, Finished | Failed):
                self._num_left.pop(event.request_id, None)
        self._send(events)


def _joined(first: Tokens, second: Tokens) -> Tokens:
    return Tokens(
        first.request_id,
        first.token_ids + second.token_ids,
        first.logprobs + second.logprobs,
        first.num_drafted + second.num_drafted,
        first.num_accepted + second.num_accepted,
    )
