"""What a parser and a turn say of an answer while it comes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of call `index` (0 is the answer's first).

    The call's first delta has its whole name, and out of a turn its id; the later ones have only arguments, in
    pieces that concatenate to JSON text.
    """

    index: int
    name: str = ""
    arguments: str = ""
    id: str = ""
    """9 letters and digits, given by `chat.turn`."""


Delta = TextDelta | ThinkingDelta | ToolCallDelta
