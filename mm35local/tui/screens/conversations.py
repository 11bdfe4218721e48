"""Past conversations at the left edge, by day; typing searches in everything that was ever said."""

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

from mm35local.errors import HistoryError
from mm35local.tui.days import clock, day
from mm35local.tui.history import History
from mm35local.tui.plain_text import visible
from mm35local.tui.records import Conversation, Finding
from mm35local.tui.screens.rename import RenameScreen


class ConversationsScreen(ModalScreen[Finding | None]):
    """Dismissed with the chosen conversation, and where it was found, or None. Changes are stored at once."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", tooltip="Back to the chat"),
        Binding("ctrl+r", "rename", "Rename", tooltip="Rename the conversation", priority=True),
        Binding("ctrl+b", "pin", "Pin", tooltip="Keep it at the top, or no longer", priority=True),
        Binding("ctrl+d", "delete", "Delete", tooltip="Delete the conversation", priority=True),
        Binding("ctrl+z", "undo", "Undo", tooltip="Bring back what was deleted last", priority=True),
        Binding("down", "move('cursor_down')", "Next", show=False, priority=True),
        Binding("up", "move('cursor_up')", "Previous", show=False, priority=True),
        Binding("pagedown", "move('page_down')", "Page down", show=False, priority=True),
        Binding("pageup", "move('page_up')", "Page up", show=False, priority=True),
    ]

    def __init__(self, history: History, line: str = "") -> None:
        """`line` is what is searched for at first."""
        super().__init__()
        self._history = history
        self._line = line
        self._listed: str | None = None
        """The line whose findings are listed."""
        self._shown: dict[str, Finding] = {}
        self._deleted: list[int] = []
        self._list = OptionList(markup=False, id="conversations")

    def compose(self) -> ComposeResult:
        with Vertical(classes="sidebar") as window:
            window.border_title = "Conversations"
            window.border_subtitle = "Enter opens · ^R rename · ^B pin · ^D delete · ^Z undo"
            yield Input(self._line, placeholder="Search in everything said", compact=True)
            yield self._list
            yield Static(markup=False, classes="empty")

    async def on_mount(self) -> None:
        self._list.can_focus = False
        await self._fill()

    @on(Input.Changed)
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        if event.value != self._line:
            self._line = event.value
            self.run_worker(self._fill(), group="search", exclusive=True)

    async def _fill(self, keep: str | None = None) -> None:
        """List what is wanted now, with `keep` under the cursor if it is still there."""
        line = self.query_one(Input).value.strip()
        try:
            if line:
                found = await self._history.search(line)
            else:
                found = [Finding(conversation) for conversation in await self._history.conversations()]
        except HistoryError as error:
            self.notify(error.hint, title=error.message, severity="error", markup=False)
            return
        self._listed = line
        self._shown = {str(finding.conversation.id): finding for finding in found}
        options = _options(found, datetime.now().astimezone(), self._list.scrollable_content_region.width)
        self._list.clear_options()
        self._list.add_options(options)
        first = next((place for place, option in enumerate(options) if not option.disabled), None)
        kept = next((place for place, option in enumerate(options) if keep and option.id == keep), first)
        self._list.highlighted = kept
        empty = self.query_one(".empty", Static)
        empty.display = not found
        empty.update("Nothing found." if line else "No conversation yet.")

    @property
    def _chosen(self) -> Finding | None:
        option = self._list.highlighted_option
        return self._shown.get(option.id) if option is not None and option.id else None

    @on(Input.Submitted)
    async def _choose(self, event: Input.Submitted) -> None:
        if event.value.strip() != self._listed:
            # Enter came before the search had ended.
            await self._fill()
        if self._chosen is not None:
            self.dismiss(self._chosen)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown.get(event.option.id or ""))

    def action_move(self, how: str) -> None:
        getattr(self._list, f"action_{how}")()

    def action_rename(self) -> None:
        if (chosen := self._chosen) is not None:
            self.run_worker(self._rename(chosen.conversation), group="change")

    async def _rename(self, chosen: Conversation) -> None:
        title = await self.app.push_screen_wait(RenameScreen(chosen.title))
        if title:
            await self._history.rename(chosen.id, title)
            await self._fill(str(chosen.id))

    async def action_pin(self) -> None:
        if (chosen := self._chosen) is not None:
            conversation = chosen.conversation
            await self._history.pin(conversation.id, not conversation.is_pinned)
            await self._fill(str(conversation.id))

    async def action_delete(self) -> None:
        if (chosen := self._chosen) is not None:
            await self._history.delete(chosen.conversation.id)
            self._deleted.append(chosen.conversation.id)
            self.notify("Deleted. Ctrl+Z brings it back.", timeout=3)
            await self._fill()

    async def action_undo(self) -> None:
        if self._deleted:
            number = self._deleted.pop()
            await self._history.undelete(number)
            await self._fill(str(number))


def _options(found: list[Finding], now: datetime, width: int) -> list[Option]:
    """The conversations, each day under its heading; `width` is that of the list in cells, 0 before it has any."""
    options: list[Option] = []
    last = ""
    for finding in found:
        conversation = finding.conversation
        heading = "Pinned" if conversation.is_pinned else day(conversation.updated_at, now)
        if heading != last:
            options.append(Option(Content.styled(heading, "bold $text-primary"), disabled=True))
            last = heading
        options.append(Option(_row(finding, now, width), id=str(conversation.id)))
    return options


def _row(finding: Finding, now: datetime, width: int) -> Content:
    conversation = finding.conversation
    mark = "★ " if conversation.is_pinned else "  "
    head = Content.assemble(
        (mark, "$text-accent"),
        visible(conversation.title).replace("\n", " "),
        (f"  {clock(conversation.updated_at, now)}", "$foreground 60%"),
    )
    if not finding.excerpt:
        return head
    said = Content.styled(f"    {visible(finding.excerpt)}", "$foreground 60%")
    return Content("\n").join([head, said.truncate(width, ellipsis=True) if width else said])
