"""What the history keeps: conversations, and the messages in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mm35local.types import Usage


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


class MessageState(StrEnum):
    STREAMING = "streaming"
    """Being written; found so after a restart, it means that the chat was killed in mid-answer."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """The person stopped it; what had come is kept."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of an answer besides its text."""

    state: MessageState = MessageState.COMPLETE
    usage: Usage | None = None
    seconds: float | None = None
    """From the first token to the last."""
    error: str | None = None
    is_cut: bool = False
    """max_tokens or the context was used up."""


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is 0 until stored."""

    role: Role
    content: str
    reasoning: str = ""
    model: str = ""
    outcome: Outcome = Outcome()
    id: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    id: int
    title: str
    model: str
    num_messages: int
    updated_at: float
    """Seconds since 1970."""
