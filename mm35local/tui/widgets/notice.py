"""An error, in line with the conversation: what is wrong, and below it what to do."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from mm35local.errors import Mm35Error
from mm35local.tui.plain_text import visible


def error_content(message: str, hint: str) -> Content:
    first = Content.assemble(("✗ ", "bold $text-error"), (visible(message), "$text-error"))
    return Content("\n").join([first, Content.styled("  " + visible(hint), "$foreground 60%")]) if hint else first


class Notice(Static):
    def __init__(self, error: Mm35Error) -> None:
        super().__init__(error_content(error.message, error.hint), markup=False)
