"""One line to write: the new name of a conversation."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input


class RenameScreen(ModalScreen[str | None]):
    """Dismissed with the new name, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Back")]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="window small") as window:
            window.border_title = "Rename"
            window.border_subtitle = "Enter renames · Esc goes back"
            yield Input(self._title, compact=True, select_on_focus=False)

    @on(Input.Submitted)
    def _renamed(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)
