"""The commands that can be written into the prompt: one table for completion, the palette and the help."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` names what follows; empty where nothing does, in brackets where it may be left out."""

    name: str
    argument: str
    help: str


COMMANDS = (
    Command("new", "", "Begin a new conversation"),
    Command("past", "[WORDS]", "Past conversations, and search in everything said"),
    Command("rename", "TITLE", "Rename this conversation"),
    Command("again", "", "Another answer to the last question, as a branch"),
    Command("edit", "", "Edit the last question and send it again, as a branch"),
    Command("fork", "", "Go on in a new conversation that holds this one"),
    Command("attach", "FILE", "Send a text file or an image along with the next question"),
    Command("effort", "none|high", "Whether the model thinks before it answers"),
    Command("system", "[TEXT]", "The system prompt; without a text there is none"),
    Command("copy", "", "Copy the last answer as Markdown"),
    Command("export", "FILE", "Write this branch, .json or Markdown; --all FILE: every one"),
    Command("import", "FILE", "Take over an export of ChatGPT, Le Chat or this chat"),
    Command("settings", "", "Sampling, presets, colours"),
    Command("theme", "", "Light or dark"),
    Command("help", "", "Every key and command"),
    Command("quit", "", "Leave"),
)


def find(name: str) -> Command | None:
    return next((command for command in COMMANDS if command.name == name), None)


def parse(text: str) -> tuple[str, str] | None:
    """The name and the argument where `text` is written as a command; None for a question (a path is one)."""
    match = _LINE.fullmatch(text.strip())
    return (match[1], (match[2] or "").strip()) if match else None


def starting_with(prefix: str) -> list[Command]:
    return [command for command in COMMANDS if command.name.startswith(prefix)]
