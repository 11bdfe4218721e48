"""What a message's `content` and thinking say, in every dialect that clients write them.

Text parts are joined as they are: clients cut one text into several to mark what is worth caching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mm35local.chat.messages import ImageAt
from mm35local.errors import RequestError
from mm35local.types import Image

_TEXT = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_THINKING = {"thinking": "thinking", "reasoning": "text", "reasoning_text": "text", "summary_text": "text"}
_UNREADABLE = ("redacted_thinking",)
"""Encrypted by another provider's model: no model but that one can read it."""


@dataclass(frozen=True, slots=True)
class Content:
    text: str = ""
    thinking: str = ""
    images: tuple[ImageAt, ...] = ()


def read_content(content: object, field: str) -> Content:
    """null, a string, or parts: OpenAI's (chat and responses), Mistral's thinking chunks, Anthropic's blocks.

    Images are read by who may fetch and decode: their parts are `types.Image` here. `field` is the wire's name, for
    errors. Raises RequestError for a part that is none of these.
    """
    if content is None or isinstance(content, str):
        return Content(content or "")
    if not isinstance(content, list):
        raise RequestError(f"{field} is a {type(content).__name__}: expected a string or a list of parts", field)
    text, thinking = "", ""
    images: list[ImageAt] = []
    for i, part in enumerate(content):
        if isinstance(part, Image):
            images.append(ImageAt(len(text), part))
            continue
        found = _read_part(part, f"{field}.{i}")
        text += found.text
        thinking += found.thinking
    return Content(text, thinking, tuple(images))


def read_thinking(value: object, field: str) -> str:
    """What `reasoning_content`, `reasoning` or a thinking part holds: null, a string, parts, or an object with text.

    Raises RequestError for anything else.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Mapping):
        names = ("thinking", "text", "content", "summary")
        return read_thinking(next((value[name] for name in names if value.get(name)), None), field)
    if isinstance(value, list):
        return "".join(read_thinking(part, f"{field}.{i}") for i, part in enumerate(value))
    raise RequestError(f"{field} is a {type(value).__name__}: expected text", field)


def _read_part(part: object, field: str) -> Content:
    if isinstance(part, str):
        return Content(part)
    if not isinstance(part, Mapping):
        raise RequestError(f"{field} is a {type(part).__name__}: expected a part", field)
    kind = str(part.get("type", "text"))
    if kind in _THINKING:
        return Content(thinking=read_thinking(part.get(_THINKING[kind]), field))
    if kind in _UNREADABLE:
        return Content()
    if kind == "document" and (text := _document(part.get("source"))) is not None:
        return Content(text)
    if kind not in _TEXT:
        raise RequestError(f"{field} is of type {kind!r}: only text and images are supported", field)
    text = part.get(_TEXT[kind])
    if not isinstance(text, str):
        raise RequestError(f"{field} has no text", field)
    return Content(text)


def _document(source: object) -> str | None:
    """Anthropic's plain text documents; None for what would have to be unpacked first."""
    if not isinstance(source, Mapping) or source.get("type") != "text":
        return None
    text = source.get("data")
    return text if isinstance(text, str) else None
