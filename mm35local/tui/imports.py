"""Conversations of other programs: ChatGPT's conversations.json, Le Chat's chat-*.json, and our own export.

A .zip of either is read as it was downloaded. Of other programs only what people and models said is taken over, as one
path each; our own come back whole, with their branches.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from mm35local.errors import UsageError
from mm35local.tui.export import FORMAT, VERSION
from mm35local.tui.plain_text import encodable
from mm35local.tui.records import Attachment, Message, MessageState, Outcome, Role, ToolCall, as_path
from mm35local.types import Usage

MAX_BYTES = 512 << 20
_HINT = "ChatGPT's and Le Chat's exports (JSON or ZIP) and those of this chat can be imported"
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT}


@dataclass(frozen=True, slots=True)
class Imported:
    title: str
    at: float
    """Seconds since 1970; 0 is unknown."""
    messages: list[Message]
    """Each after its parent; ids count from 1."""
    shown_id: int = 0
    """The end of the branch that was shown; 0 is the last message."""


def read_export(path: Path) -> list[Imported]:
    """The conversations in a file, empty ones left out. Raises UsageError for what is none of the known exports."""
    try:
        found = [conversation for text in _documents(path.expanduser()) for conversation in _read(text)]
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}", _HINT) from problem
    except (ValueError, RecursionError, zipfile.BadZipFile) as problem:  # pydantic's error is a ValueError too
        detail = f"{problem.error_count()} fields are wrong" if isinstance(problem, ValidationError) else str(problem)
        raise UsageError(f"{path} is no export that this chat knows: {detail}", _HINT) from problem
    return [conversation for conversation in found if conversation.messages]


def _documents(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        yield path.read_text("utf-8")
        return
    with zipfile.ZipFile(path) as archive:
        wanted = [info for info in archive.infolist() if _is_conversations(info.filename)]
        if not wanted:
            raise ValueError("no conversations.json and no chat-*.json in it")
        if sum(info.file_size for info in wanted) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        for info in wanted:
            yield archive.read(info).decode("utf-8")


def _is_conversations(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return base.endswith(".json") and (base.startswith(("conversations", "chat-")))


def _read(text: str) -> list[Imported]:
    document = json.loads(text)
    if isinstance(document, dict) and document.get("format") == FORMAT:
        return [OwnBody.model_validate(document).as_imported()]
    items = document if isinstance(document, list) else [document]
    if all(isinstance(item, dict) and "mapping" in item for item in items):
        return [ChatGptBody.model_validate(item).as_imported() for item in items]
    if items and all(isinstance(item, dict) and "role" in item for item in items):
        return [_le_chat([LeChatBody.model_validate(item) for item in items])]
    raise ValueError("unknown fields")


def _text(value: Any) -> str:
    return encodable(value) if isinstance(value, str) else ""


Text = Annotated[str, BeforeValidator(_text)]


class ChatGptContent(BaseModel):
    content_type: str = "text"
    parts: list[Any] = Field(default_factory=list)

    def text(self) -> str:
        return "\n\n".join(encodable(part) for part in self.parts if isinstance(part, str) and part)


class ChatGptAuthor(BaseModel):
    role: str


class ChatGptMessage(BaseModel):
    author: ChatGptAuthor
    content: ChatGptContent
    create_time: float | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    def as_message(self) -> Message | None:
        """None for system prompts, tools, code that ran, and what the page itself hides."""
        role, text = _ROLES.get(self.author.role), self.content.text()
        is_said = self.content.content_type in ("text", "multimodal_text")
        if role is None or not is_said or not text or self.metadata.get("is_visually_hidden_from_conversation"):
            return None
        model = self.metadata.get("model_slug") if role is Role.ASSISTANT else None
        return Message(role, text, model=_text(model), created_at=self.create_time or 0.0)


class ChatGptNode(BaseModel):
    parent: str | None = None
    message: ChatGptMessage | None = None


class ChatGptBody(BaseModel):
    """One conversation: nodes of a tree, of which the path to `current_node` is the one that was shown."""

    title: Text = ""
    create_time: float | None = None
    update_time: float | None = None
    mapping: dict[str, ChatGptNode]
    current_node: str | None = None

    def as_imported(self) -> Imported:
        path: list[Message] = []
        at, seen = self.current_node or next(reversed(self.mapping), None), set[str]()
        while at in self.mapping and at not in seen:
            seen.add(at)
            node = self.mapping[at]
            if node.message and (message := node.message.as_message()):
                path.append(message)
            at = node.parent
        at_seconds = self.update_time or self.create_time or 0.0
        return Imported(self.title or "(untitled)", at_seconds, as_path(path[::-1]))


class LeChatChunk(BaseModel):
    type: str = "text"
    text: Text = ""


class LeChatBody(BaseModel):
    """One message; a file holds those of one chat."""

    role: str
    content: Text = ""
    contentChunks: list[LeChatChunk] | None = None
    createdAt: datetime | None = None
    model: Text = ""

    def as_message(self) -> Message | None:
        role = _ROLES.get(self.role)
        chunks = "".join(chunk.text for chunk in self.contentChunks or () if chunk.type == "text")
        text = self.content or chunks
        at = self.createdAt.timestamp() if self.createdAt else 0.0
        return Message(role, text, model=self.model, created_at=at) if role and text else None


def _le_chat(bodies: list[LeChatBody]) -> Imported:
    messages = sorted((m for body in bodies if (m := body.as_message())), key=lambda message: message.created_at)
    first = next((message.content for message in messages if message.role is Role.USER), "")
    title = next((line.strip() for line in first.splitlines() if line.strip()), "(untitled)")
    return Imported(title, messages[-1].created_at if messages else 0.0, as_path(messages))


class OwnAttachment(BaseModel):
    name: str
    media_type: str
    data: str


class OwnCall(BaseModel):
    name: str
    arguments: str
    id: str = ""


Count = Annotated[int, Field(ge=0, le=1 << 53)]


class OwnUsage(BaseModel):
    num_prompt_tokens: Count
    num_completion_tokens: Count
    num_cached_tokens: Count = 0


class OwnMessage(BaseModel):
    role: Role
    content: Text = ""
    reasoning: Text = ""
    model: Text = ""
    created_at: datetime | None = None
    state: MessageState = MessageState.COMPLETE
    error: str | None = None
    is_cut: bool = False
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    usage: OwnUsage | None = None
    attachments: list[OwnAttachment] = Field(default_factory=list)
    tool_calls: list[OwnCall] = Field(default_factory=list)

    def as_message(self) -> Message:
        usage = Usage(**self.usage.model_dump()) if self.usage else None
        return Message(
            self.role,
            self.content,
            self.reasoning,
            self.model,
            Outcome(self.state, usage, self.seconds, self.error, self.is_cut),
            attachments=tuple(Attachment(**item.model_dump()) for item in self.attachments),
            tool_calls=tuple(ToolCall(**call.model_dump()) for call in self.tool_calls),
            created_at=self.created_at.timestamp() if self.created_at else 0.0,
        )


class OwnBody(BaseModel):
    """One branch, or all: then `parents` and `shown` are places in `messages`."""

    version: Annotated[int, Field(ge=1, le=VERSION)]
    title: Text = "(untitled)"
    messages: list[OwnMessage]
    parents: list[int | None] | None = None
    shown: int | None = None

    @model_validator(mode="after")
    def _is_a_tree(self) -> OwnBody:
        if self.parents is not None:
            known = (parent is None or 0 <= parent < place for place, parent in enumerate(self.parents))
            if len(self.parents) != len(self.messages) or not all(known):
                raise ValueError("every message needs a parent that stands before it, or none")
        if self.shown is not None and not 0 <= self.shown < len(self.messages):
            raise ValueError("the message that was shown is none of them")
        return self

    def as_imported(self) -> Imported:
        said = [message.as_message() for message in self.messages]
        messages = as_path(said) if self.parents is None else _as_tree(said, self.parents)
        at = messages[-1].created_at if messages else 0.0
        return Imported(self.title, at, messages, 0 if self.shown is None else self.shown + 1)


def _as_tree(messages: Sequence[Message], parents: Sequence[int | None]) -> list[Message]:
    ids = [0 if parent is None else parent + 1 for parent in parents]
    return [replace(m, id=number, parent_id=ids[number - 1]) for number, m in enumerate(messages, start=1)]
