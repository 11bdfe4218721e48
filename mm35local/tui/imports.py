"""Conversations of other programs: ChatGPT's conversations.json, Le Chat's chat-*.json, and our own export.

A .zip of either is read as it was downloaded. Only what people and models said is taken over, as one path each.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from mm35local.errors import UsageError
from mm35local.tui.export import FORMAT
from mm35local.tui.plain_text import encodable
from mm35local.tui.records import Attachment, Message, Role, ToolCall

MAX_BYTES = 512 << 20
_HINT = "ChatGPT's and Le Chat's exports (JSON or ZIP) and those of this chat can be imported"
_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT}


@dataclass(frozen=True, slots=True)
class Imported:
    title: str
    at: float
    """Seconds since 1970; 0 is unknown."""
    messages: list[Message]


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
        return Imported(self.title or "(untitled)", self.update_time or self.create_time or 0.0, path[::-1])


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
    return Imported(title, messages[-1].created_at if messages else 0.0, messages)


class OwnAttachment(BaseModel):
    name: str
    media_type: str
    data: str


class OwnCall(BaseModel):
    name: str
    arguments: str
    id: str = ""


class OwnMessage(BaseModel):
    role: Role
    content: Text = ""
    reasoning: Text = ""
    model: Text = ""
    created_at: datetime | None = None
    attachments: list[OwnAttachment] = Field(default_factory=list)
    tool_calls: list[OwnCall] = Field(default_factory=list)

    def as_message(self) -> Message:
        return Message(
            self.role,
            self.content,
            self.reasoning,
            self.model,
            attachments=tuple(Attachment(**item.model_dump()) for item in self.attachments),
            tool_calls=tuple(ToolCall(**call.model_dump()) for call in self.tool_calls),
            created_at=self.created_at.timestamp() if self.created_at else 0.0,
        )


class OwnBody(BaseModel):
    title: Text = "(untitled)"
    messages: list[OwnMessage]

    def as_imported(self) -> Imported:
        messages = [message.as_message() for message in self.messages]
        return Imported(self.title, messages[-1].created_at if messages else 0.0, messages)
