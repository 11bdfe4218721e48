"""What the person asked: shown letter by letter as it was written, never as Markdown or markup."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from mm35local.tui.plain_text import visible
from mm35local.tui.records import Message
from mm35local.tui.widgets.image import ImagePreview
from mm35local.tui.widgets.turn import Turn


class Question(Turn):
    def __init__(self, message: Message, place: tuple[int, int] = (1, 1)) -> None:
        super().__init__(message.id, place)
        self._message = message

    def compose(self) -> ComposeResult:
        yield Static(Content(visible(self._message.content)), markup=False, classes="said")
        for item in self._message.attachments:
            size = f"{len(item.data):,} characters" if not item.is_image else item.media_type
            yield Static(Content(f"+ {visible(item.name)} · {size}"), markup=False, classes="attached")
            if item.is_image:
                yield ImagePreview(item.data)
        yield from self.compose_versions()
