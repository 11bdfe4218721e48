"""A conversation as a file: Markdown to read, JSON to keep everything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mm35local.errors import UsageError
from mm35local.tui.attachments import fenced
from mm35local.tui.records import Message, Role

FORMAT = "mm35local-conversation"
VERSION = 1


def as_markdown(title: str, messages: Sequence[Message]) -> str:
    """The branch that is shown, each message under a heading; thinking is quoted."""
    parts = [f"# {title}"]
    for message in messages:
        asked = message.role is Role.USER
        parts.append("## You" if asked else f"## {message.model or 'Assistant'}")
        parts.extend(f"*attached: {item.name}*" if item.is_image else fenced(item) for item in message.attachments)
        if message.reasoning:
            parts.append("\n".join(f"> {line}".rstrip() for line in message.reasoning.splitlines()))
        parts.extend(f"Calls `{call.name}`:\n\n```json\n{call.arguments}\n```" for call in message.tool_calls)
        if message.content:
            parts.append(message.content.rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def as_json(title: str, messages: Sequence[Message]) -> str:
    """Everything that is stored of the branch that is shown."""
    document = {"format": FORMAT, "version": VERSION, "title": title, "messages": [_fields(m) for m in messages]}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _fields(message: Message) -> dict[str, Any]:
    usage = message.outcome.usage
    at = datetime.fromtimestamp(message.created_at, UTC).isoformat() if message.created_at else None
    return {
        "role": message.role.value,
        "content": message.content,
        "reasoning": message.reasoning,
        "model": message.model,
        "created_at": at,
        "state": message.outcome.state.value,
        "usage": asdict(usage) if usage else None,
        "attachments": [asdict(item) for item in message.attachments],
        "tool_calls": [asdict(call) for call in message.tool_calls],
    }


def write_export(path: Path, title: str, messages: Sequence[Message]) -> None:
    """The name's ending decides: .json, or Markdown. Raises UsageError if it cannot be written or stands there."""
    text = as_json(title, messages) if path.suffix.lower() == ".json" else as_markdown(title, messages)
    try:
        with path.expanduser().open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise UsageError(
            f"{path}: {problem.strerror}", "give a name that is free, in a folder that exists"
        ) from problem
