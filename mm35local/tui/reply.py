"""One answer while it comes: its text in parts, its clock and its counts.

Readers keep their own place in a `Growth`, so the screen and the history each take what is new to them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from mm35local.errors import Mm35Error
from mm35local.tui.events import CallDelta, ChatEvent, Delta, Ended, Opened, Prefill
from mm35local.tui.records import MessageState, Outcome, ToolCall
from mm35local.types import Usage


class Phase(StrEnum):
    WAITING = "waiting"
    """The server has not taken the request yet."""
    PREFILL = "prefill"
    """It reads the prompt."""
    THINKING = "thinking"
    ANSWERING = "answering"
    DONE = "done"


@dataclass(slots=True)
class Growth:
    """Text that only grows."""

    parts: list[str] = field(default_factory=list)

    def since(self, num_seen: int) -> tuple[str, int]:
        """What came after the first `num_seen` parts, and how many parts there are now."""
        return "".join(self.parts[num_seen:]), len(self.parts)

    @property
    def text(self) -> str:
        return "".join(self.parts)


@dataclass(slots=True)
class Reply:
    """Times are seconds of `time.monotonic`; parts stand for tokens until the server's usage says better."""

    message_id: int
    model: str
    phase: Phase = Phase.WAITING
    content: Growth = field(default_factory=Growth)
    reasoning: Growth = field(default_factory=Growth)
    calls: dict[int, CallDelta] = field(default_factory=dict)
    """Tool calls by their index, each with all that has come of it."""
    prefill: Prefill | None = None
    prefill_at: float = 0.0
    num_before: int | None = None
    """The most that can be served before it, as things stand; None while the server has not said that anybody waits."""
    usage: Usage | None = None
    error: Mm35Error | None = None
    state: MessageState = MessageState.STREAMING
    is_cut: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    answer_at: float | None = None
    last_at: float | None = None

    def feed(self, event: ChatEvent) -> None:
        match event:
            case Opened():
                self.phase = Phase.PREFILL
            case Prefill():
                self.phase, self.prefill, self.prefill_at = Phase.PREFILL, event, time.monotonic()
            case Delta():
                self._grow(event, time.monotonic())
            case CallDelta():
                self._call(event, time.monotonic())
            case Ended(finish_reason):
                self.is_cut = finish_reason == "length"
            case Usage():
                self.usage = event

    def _grow(self, delta: Delta, now: float) -> None:
        self.last_at = now
        self.first_at = self.first_at or now
        if delta.reasoning:
            self.reasoning.parts.append(delta.reasoning)
            self.phase = Phase.THINKING
        if delta.content:
            self.answer_at = self.answer_at or now
            self.content.parts.append(delta.content)
            self.phase = Phase.ANSWERING

    def _call(self, delta: CallDelta, now: float) -> None:
        self.last_at, self.first_at, self.answer_at = now, self.first_at or now, self.answer_at or now
        self.phase = Phase.ANSWERING
        known = self.calls.get(delta.index, CallDelta(delta.index))
        arguments = known.arguments + delta.arguments
        self.calls[delta.index] = CallDelta(delta.index, known.name or delta.name, arguments, known.id or delta.id)

    @property
    def is_queued(self) -> bool:
        """The engine has not begun with it, as far as the server has said."""
        return self.prefill is None and self.phase in (Phase.WAITING, Phase.PREFILL)

    def tell_waiting(self, num_waiting: int) -> None:
        """How many the server says wait, this one among them. Clients take turns: of the others, some that came earlier
        may stand behind, and one that comes later may be served before."""
        if num_waiting:
            self.num_before = num_waiting - 1

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(call.name, call.arguments, call.id) for call in self.calls.values())

    @property
    def prefill_eta_seconds(self) -> float | None:
        """Until the prompt is read, at the speed so far; None while that cannot be told."""
        read = self.prefill
        if read is None or read.num_done <= read.num_cached or read.seconds <= 0:
            return None
        speed = (read.num_done - read.num_cached) / read.seconds
        return max(0.0, (read.num_total - read.num_done) / speed - (time.monotonic() - self.prefill_at))

    def end(self, state: MessageState, error: Mm35Error | None = None) -> None:
        self.state, self.error, self.phase = state, error, Phase.DONE

    @property
    def num_tokens(self) -> int:
        return self.usage.num_completion_tokens if self.usage else len(self.content.parts) + len(self.reasoning.parts)

    @property
    def decode_seconds(self) -> float | None:
        """From the first token to the last; None before one has come."""
        return self.last_at - self.first_at if self.last_at and self.first_at else None

    @property
    def thinking_seconds(self) -> float:
        if self.first_at is None or not self.reasoning.parts:
            return 0.0
        end = self.answer_at or (self.last_at if self.phase is Phase.DONE else None) or time.monotonic()
        return end - self.first_at

    @property
    def seconds(self) -> float:
        """Since the question was sent; stands still once the answer is done."""
        end = self.last_at if self.phase is Phase.DONE and self.last_at else time.monotonic()
        return end - self.asked_at

    def outcome(self) -> Outcome:
        error = self.error.message if self.error else None
        return Outcome(self.state, self.usage or self._usage_so_far, self.decode_seconds, error, self.is_cut)

    @property
    def _usage_so_far(self) -> Usage | None:
        """Of an answer that did not come to its end, where the server tells its usage."""
        if self.prefill is None or not self.num_tokens:
            return None
        return Usage(self.prefill.num_total, self.num_tokens, self.prefill.num_cached)
