"""A conversation as this house sees it, whatever wire it came over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mm35local.chat.tools import Tool, ToolCall, ToolChoice


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
    """Read the wires' `content` with `chat.content.read_content`; `chat.normalize` accepts any order of these."""

    role: Role
    content: str = ""
    thinking: str = ""
    """What the assistant thought before `content`; empty for every other role."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the assistant called after `content`; empty for every other role."""
    tool_call_id: str = ""
    """Of a tool's result: the call it answers, as the client wrote it; empty where the client did not say."""
    name: str = ""
    """Of a tool's result: the function's name, if the client gave it. Only read when no call has this id."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything the prompt depends on, and what the answer may call.

    `now` is the caller's clock, so that rendering stays pure. All `tools` stand in the prompt whatever
    `tool_choice` says, so that another choice keeps the prefix cached; the grammar enforces the choice.
    """

    messages: tuple[Message, ...]
    now: datetime
    effort: Effort = Effort.NONE
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    """False: at most one call in the answer."""
