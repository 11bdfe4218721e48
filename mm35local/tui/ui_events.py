"""Every message between the chat's widgets. Workers and widgets post them; the screen acts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.message import Message

from mm35local.tui.connection import Link
from mm35local.tui.reply import Reply
from mm35local.tui.widgets.completions import Word

TurnAct = Literal[
    "previous",
    "next",
    "older",
    "newer",
    "edit",
    "again",
    "copy",
    "copy_code",
    "page",
    "view",
    "fork",
    "thinking",
    "leave",
]


@dataclass
class Submitted(Message):
    """The person sent what is in the prompt."""

    text: str


@dataclass
class LinkChanged(Message):
    link: Link


@dataclass
class AnswerEnded(Message):
    """The answer is complete, stopped or failed; `reply.state` says which."""

    reply: Reply


@dataclass
class TurnAsked(Message):
    """A key was pressed on a message of the conversation."""

    message_id: int
    act: TurnAct


@dataclass
class Completing(Message):
    """A word is being written that may be completed; None: no longer."""

    word: Word | None


@dataclass
class Completed(Message):
    """A completion was taken."""

    word: Word
    choice: str


@dataclass
class Pasted(Message):
    """A text too long to stand in the prompt."""

    text: str


@dataclass
class Detached(Message):
    """The person takes off what was attached last."""
