"""A conversation as this house sees it, whatever wire it came over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from mm35local.chat.tools import Tool, ToolCall, ToolChoice
from mm35local.errors import RequestError
from mm35local.types import Image


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
class ImageAt:
    """An image in a text: it stands before the character `offset`."""

    offset: int
    image: Image


def shifted(images: Iterable[ImageAt], by: int) -> tuple[ImageAt, ...]:
    """Where they stand once `by` characters come before their text."""
    return tuple(replace(each, offset=each.offset + by) for each in images)


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
    images: tuple[ImageAt, ...] = ()
    """In `content`, in order. `chat.normalize` leaves them to users and tools' results, where a model may have them."""

    @property
    def parts(self) -> tuple[str | Image, ...]:
        """`content`, cut where its images stand."""
        parts: list[str | Image] = []
        start = 0
        for each in self.images:
            parts += [self.content[start : each.offset], each.image]
            start = each.offset
        return tuple(part for part in (*parts, self.content[start:]) if part)


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

    @property
    def images(self) -> tuple[Image, ...]:
        """Each once, in order of first appearance."""
        return tuple(dict.fromkeys(each.image for message in self.messages for each in message.images))


def no_vision(field: str = "messages") -> RequestError:
    """For a conversation with images, where the model has no eyes."""
    return RequestError(
        f"{field}: this model sees no images",
        field,
        "no_vision",
        "leave the images out, or start the server with the vision part of the model: --mmproj FILE",
    )
