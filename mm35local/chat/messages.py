"""A conversation as this house sees it, whatever wire it came over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    SYSTEM = "system"
    DEVELOPER = "developer"
    """The newer name of `system` on OpenAI's wire."""
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Effort(StrEnum):
    """How much the model thinks before it answers; the two positions that Mistral Medium 3.5 has."""

    NONE = "none"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    thinking: str = ""
    """What the assistant thought before `content`; empty for every other role."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything the prompt depends on. `now` is the caller's clock, so that rendering stays pure."""

    messages: tuple[Message, ...]
    now: datetime
    effort: Effort = Effort.NONE
