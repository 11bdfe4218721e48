"""What becomes of a server that this chat started, when others use it too."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

Choice = Literal["leave", "stop"]


class LeaveScreen(ModalScreen[Choice | None]):
    """Dismissed with what to do, or None to stay."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Back", tooltip="Stay in the chat")]

    def __init__(self, num_others: int) -> None:
        super().__init__()
        self._num_others = num_others

    def compose(self) -> ComposeResult:
        answers = "1 answer" if self._num_others == 1 else f"{self._num_others} answers"
        with Vertical(classes="window small") as window:
            window.border_title = "Leave"
            window.border_subtitle = "Esc stays"
            yield Static(f"The server that this chat started gives {answers} to others.", markup=False)
            yield OptionList(
                Option("Leave, and let it run on", id="leave"), Option("Leave, and stop it", id="stop"), markup=False
            )

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss("leave" if event.option.id == "leave" else "stop")
