"""What the person asked: shown letter by letter as it was written, never as Markdown or markup."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from mm35local.tui.plain_text import visible


class Question(Static):
    def __init__(self, text: str) -> None:
        super().__init__(Content(visible(text)), markup=False)
