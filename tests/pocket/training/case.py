"""A dialogue in wire form with the reply it should get; plain data for training and for the behaviour suite alike."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Effort = Literal["none", "high"]
Message = dict[str, Any]
Key = tuple[str | int, ...]

_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any]

    @classmethod
    def parse(cls, name: str, arguments_json: str) -> Call:
        """Raises ValueError where the arguments are not JSON."""
        return cls(name, json.loads(arguments_json))

    @property
    def arguments_json(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model says: the text a user sees, the thinking before it, the tool calls after it."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One question. `messages` and `tools` are OpenAI's wire form; `images` are the PNG bytes inside `messages`."""

    family: str
    key: Key
    """The combination of atoms this case is made of: a key is either trained on or held out, never both."""
    messages: tuple[Message, ...]
    expected: Reply
    tools: tuple[dict[str, Any], ...] = ()
    effort: Effort = "none"
    images: tuple[bytes, ...] = ()

    @property
    def is_held_out(self) -> bool:
        """A family and its thinking twin draw the same line, so that neither betrays the other's questions."""
        lesson = self.family.removesuffix("_thinking")
        return zlib.crc32(repr((lesson, *self.key)).encode()) % _ONE_IN == 0

    def passes(self, answer: Reply) -> bool:
        """Text and calls as expected, and thinking exactly when it was asked for (its wording is free)."""
        is_same = answer.text.strip() == self.expected.text and answer.calls == self.expected.calls
        return is_same and bool(answer.thinking) == bool(self.expected.thinking)


def draw_trained(draw: Callable[[Random], Case], rng: Random) -> Case:
    """A case whose combination training may see."""
    while True:
        case = draw(rng)
        if not case.is_held_out:
            return case


def ask(text: str) -> Message:
    return {"role": "user", "content": text}


def said(reply: Reply) -> Message:
    """The reply as an assistant message of the history."""
    content: str | list[dict[str, Any]] = reply.text
    if reply.thinking:
        content = [{"type": "thinking", "thinking": reply.thinking}, {"type": "text", "text": reply.text}]
    return {"role": "assistant", "content": content}
