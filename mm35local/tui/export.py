"""A conversation as a file: Markdown to read, JSON to keep everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mm35local.errors import UsageError
from mm35local.tui.attachments import fenced
from mm35local.tui.records import Message, Role

FORMAT = "mm35local-conversation"
VERSION = 2


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
    return _dumped(title, messages, {})


def tree_as_json(title: str, messages: Sequence[Message], shown_id: int) -> str:
    """Everything that is stored of all branches; `shown_id` is the end of the one that is shown.

    `parents` and `shown` are places in `messages`, in which every message comes after its parent.
    """
    places = {message.id: place for place, message in enumerate(messages)}
    parents = [places.get(message.parent_id) for message in messages]
    return _dumped(title, messages, {"parents": parents, "shown": places[shown_id]})


def _dumped(title: str, messages: Sequence[Message], more: Mapping[str, object]) -> str:
    head = {"format": FORMAT, "version": VERSION, "title": title, **more}
    return json.dumps({**head, "messages": [_fields(m) for m in messages]}, ensure_ascii=False, indent=2) + "\n"


def _fields(message: Message) -> dict[str, Any]:
    outcome = message.outcome
    at = datetime.fromtimestamp(message.created_at, UTC).isoformat() if message.created_at else None
    return {
        "role": message.role.value,
        "content": message.content,
        "reasoning": message.reasoning,
        "model": message.model,
        "created_at": at,
        "state": outcome.state.value,
        "error": outcome.error,
        "is_cut": outcome.is_cut,
        "seconds": outcome.seconds,
        "usage": asdict(outcome.usage) if outcome.usage else None,
        "attachments": [asdict(item) for item in message.attachments],
        "tool_calls": [asdict(call) for call in message.tool_calls],
    }


def is_json(path: Path) -> bool:
    """The name's ending decides: .json, or Markdown."""
    return path.suffix.lower() == ".json"


def write_new(path: Path, text: str) -> None:
    """Raises UsageError if it cannot be written or stands there already."""
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()  # half of it, which the next try would find in its way
                raise
    except OSError as problem:
        raise UsageError(
            f"{path}: {problem.strerror}", "give a name that is free, in a folder that exists"
        ) from problem
