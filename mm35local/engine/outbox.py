"""The worker's mouth: tokens of very quick steps leave together, thirty times a second.

Whoever reads them runs on the cores that the next step computes on: at a thousand tokens a second a message each costs
more than the tokens, and one that tells of a start delays the first token. An answer's first text, its end, and what
else there is to tell never wait; a start does, where its first step is as quick, and how far a prompt is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mm35local.engine.api import CellUse, Failed, Finished, Progress, Started, Tokens, WorkerEvent

HOLD_SECONDS = 1 / 30
"""As often as video moves: nobody sees text come more smoothly. No token waits longer, unless the next step is slower
than the last."""
FIRST_TOKENS = 4
"""So many leave at once where none of them is text: together they may be a character."""


class Outbox:
    """Invariant: of each request, events leave in the order in which they were put."""

    def __init__(
        self,
        send: Callable[[Sequence[WorkerEvent]], object],
        clock: Callable[[], float] = time.monotonic,
        make_way: Callable[[], None] = lambda: None,
        is_text: Callable[[int], bool] = lambda _token_id: True,
    ) -> None:
        """`make_way` is called after what somebody waits for was sent, to let it be read before the next step.

        `is_text`: can a token be read by itself?
        """
        self._send = send
        self._is_text = is_text
        self._clock = clock
        self._make_way = make_way
        self._starts: list[WorkerEvent] = []
        self._progress: dict[int, Progress] = {}
        self._tokens: dict[int, Tokens] = {}
        """What is held of each request, in one event."""
        self._num_begun: dict[int, int] = {}
        """First tokens of each request, all FIRST_TOKENS once one was text."""
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
        is_patient = all([self._may_wait(event) for event in events])
        others = [event for event in events if not self._hold(event)]
        if not is_patient:
            self._leave(others, now)
            self._make_way()
        elif not may_hold or now + seconds > self._sent_at + HOLD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is held: there is something else to do before the next step."""
        if self._starts or self._progress or self._tokens:
            self._leave((), self._put_at)

    def _may_wait(self, event: WorkerEvent) -> bool:
        if not isinstance(event, Tokens):
            return isinstance(event, Progress)
        num_begun = self._num_begun.get(event.request_id, 0)
        if num_begun >= FIRST_TOKENS:
            return True
        has_text = any(map(self._is_text, event.token_ids))
        num_begun = FIRST_TOKENS if has_text else num_begun + len(event.token_ids)
        self._num_begun[event.request_id] = num_begun
        return num_begun < FIRST_TOKENS

    def _hold(self, event: WorkerEvent) -> bool:
        """Keep it for the next message. False if it is none of those that come before the others there."""
        match event:
            case Tokens():
                held = self._tokens.get(event.request_id)
                self._tokens[event.request_id] = _joined(held, event) if held else event
            case Progress():
                self._progress[event.request_id] = event
            case Started():
                self._starts.append(event)
            case _:
                return False
        return True

    def _leave(self, others: Sequence[WorkerEvent], now: float) -> None:
        for event in others:
            if isinstance(event, Finished | Failed):
                self._num_begun.pop(event.request_id, None)
            if isinstance(event, Finished) and (last := self._tokens.get(event.request_id)):
                self._tokens[event.request_id] = replace(last, is_last=True)
        events = [*self._starts, *self._progress.values(), *self._tokens.values(), *others]
        self._starts, self._progress, self._tokens = [], {}, {}
        self._sent_at = now
        self._send(events)


def _joined(first: Tokens, second: Tokens) -> Tokens:
    return Tokens(
        first.request_id,
        first.token_ids + second.token_ids,
        first.logprobs + second.logprobs,
        first.num_drafted + second.num_drafted,
        first.num_accepted + second.num_accepted,
    )
