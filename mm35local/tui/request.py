"""What the chat asks a server: the messages of a conversation, and how they shall be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    """"system", "user" or "assistant"."""
    content: str
    images: tuple[str, ...] = ()
    """Data URLs, shown to the model before the text."""

    def body(self) -> dict[str, Any]:
        if not self.images:
            return {"role": self.role, "content": self.content}
        images = [{"type": "image_url", "image_url": {"url": url}} for url in self.images]
        return {"role": self.role, "content": [*images, {"type": "text", "text": self.content}]}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """None leaves the choice to the server."""

    messages: tuple[ChatMessage, ...]
    model: str = "default"
    effort: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None

    def pieces(self) -> Iterator[bytes]:
        """The body as JSON, some 64 KiB at a time: of a long conversation it is never held whole."""
        piece = b""
        for part in self._parts():
            piece += part
            if len(piece) >= _PIECE_BYTES:
                yield piece
                piece = b""
        yield piece

    def _parts(self) -> Iterator[bytes]:
        """Message by message."""
        yield _json(self._options()).removesuffix(b"}") + b',"messages":['
        for number, message in enumerate(self.messages):
            yield (b"," if number else b"") + _json(message.body())
        yield b"]}"

    def _options(self) -> dict[str, Any]:
        optional = {
            "reasoning_effort": self.effort,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        return {
            "model": self.model,
            "stream": True,
            "return_progress": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in optional.items() if value is not None},
        }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
