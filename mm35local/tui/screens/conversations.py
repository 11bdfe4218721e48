"""Past conversations in a list, the newest first; typing narrows it down by title."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from mm35local.tui.plain_text import visible
from mm35local.tui.records import Conversation


class ConversationsScreen(ModalScreen[int | None]):
    """Dismissed with the id of the chosen conversation, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back"),
        Binding("down", "move('cursor_down')", "Next", show=False, priority=True),
        Binding("up", "move('cursor_up')", "Previous", show=False, priority=True),
        Binding("pagedown", "move('page_down')", "Page down", show=False, priority=True),
        Binding("pageup", "move('page_up')", "Page up", show=False, priority=True),
    ]

    def __init__(self, conversations: list[Conversation]) -> None:
        super().__init__()
        self._conversations = conversations
        self._list = OptionList(markup=False, id="conversations")

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = "Conversations"
            window.border_subtitle = "Enter opens · Esc goes back"
            yield Input(placeholder="Filter by title", compact=True)
            yield self._list
            yield Static("No conversation yet.", classes="empty", markup=False)

    def on_mount(self) -> None:
        self._fill("")
        self._list.can_focus = False

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, wanted: str) -> None:
        found = [c for c in self._conversations if wanted.casefold() in c.title.casefold()]
        self._list.clear_options()
        self._list.add_options([Option(_row(c), id=str(c.id)) for c in found])
        self._list.highlighted = 0 if found else None
        self.query_one(".empty").display = not found

    @on(Input.Submitted)
    def _choose(self) -> None:
        option = self._list.highlighted_option
        self.dismiss(int(option.id) if option is not None and option.id else None)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(int(event.option.id or 0))

    def action_move(self, how: str) -> None:
        getattr(self._list, f"action_{how}")()


def _row(conversation: Conversation) -> Content:
    when = _day(datetime.fromtimestamp(conversation.updated_at).astimezone(), datetime.now().astimezone())
    number = conversation.num_messages
    return Content.assemble(
        (f"{when:>16}", "$foreground 60%"),
        f"  {visible(conversation.title)}",
        (f"  {number} message{'' if number == 1 else 's'}", "$foreground 60%"),
    )


def _day(when: datetime, now: datetime) -> str:
    days = (now.date() - when.date()).days
    clock = f"{when:%H:%M}"
    if days <= 0:
        return f"today {clock}"
    if days == 1:
        return f"yesterday {clock}"
    return f"{when:%a} {clock}" if days < 7 else f"{when:%Y-%m-%d}"
