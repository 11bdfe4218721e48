"""What the history keeps: conversations, the messages in them, and what was attached to a message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
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
class Attachment:
    """A file sent along with a question. `data` is the text itself, or an image's bytes in base64."""

    name: str
    media_type: str
    data: str

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith("image/")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON as the model wrote it, whole or not."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is 0 until stored; `parent_id` is the message that it follows, 0 for the first of a conversation."""

    role: Role
    content: str
    reasoning: str = ""
    model: str = ""
    outcome: Outcome = Outcome()
    id: int = 0
    parent_id: int = 0
    attachments: tuple[Attachment, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    created_at: float = field(default=0.0, compare=False)
    """Seconds since 1970; 0 is now, once it is stored."""


def as_path(messages: Iterable[Message]) -> list[Message]:
    """Each the parent of the next; ids count from 1."""
    return [replace(message, id=place + 1, parent_id=place) for place, message in enumerate(messages)]


@dataclass(frozen=True, slots=True)
class Conversation:
    id: int
    title: str
    model: str
    num_messages: int
    updated_at: float
    """Seconds since 1970."""
    is_pinned: bool = False
    leaf_id: int = 0
    """The last message of the branch that was shown last."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A conversation that a search found. `excerpt` is the text around the find; empty where the title has it."""

    conversation: Conversation
    excerpt: str = ""
    message_id: int = 0
