"""What a question and an answer have in common: the keyboard can stand on it, and every key that acts on a message."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from mm35local.tui.ui_events import TurnAct, TurnAsked
from mm35local.tui.widgets.growing import Column


class Turn(Column, can_focus=True):
    # A click (to mark text, by accident) would otherwise make the letters that are written next act on the message.
    FOCUS_ON_CLICK = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "act('previous')", "Up", tooltip="The message before"),
        Binding("down,j", "act('next')", "Down", tooltip="The message after"),
        Binding("left,h", "act('older')", "Older", tooltip="The version of it before"),
        Binding("right,l", "act('newer')", "Newer", tooltip="The version of it after"),
        Binding("e", "act('edit')", "Edit", tooltip="Edit the question and send it again, as a branch"),
        Binding("r", "act('again')", "Again", tooltip="Another answer, as a branch"),
        Binding("c", "act('copy')", "Copy", tooltip="Copy the message as Markdown"),
        Binding("b", "act('copy_code')", "Code", tooltip="Copy its last code block; again for the one before"),
        Binding("o", "act('page')", "Pager", tooltip="Read it in $PAGER", show=False),
        Binding("v", "act('view')", "Editor", tooltip="Open it in $EDITOR", show=False),
        Binding("f", "act('fork')", "Fork", tooltip="Go on from here in a new conversation"),
        Binding("t,enter", "act('thinking')", "Thinking", tooltip="Show or hide its thinking", show=False),
        Binding("escape", "act('leave')", "Prompt", tooltip="Back to the prompt", show=False),
    ]

    def __init__(self, message_id: int, place: tuple[int, int] = (1, 1)) -> None:
        """`place` is which of how many versions of the message this is."""
        super().__init__()
        self.message_id = message_id
        self._place = place

    def compose_versions(self) -> ComposeResult:
        """The line that tells which version it is, where there are several."""
        number, count = self._place
        if count > 1:
            yield Static(Content(f"‹ {number}/{count} ›"), markup=False, classes="versions")

    async def tell_place(self, place: tuple[int, int]) -> None:
        self._place = place
        await self.query_children(".versions").remove()
        await self.mount_all(list(self.compose_versions()))

    def rest(self) -> None:
        """Hold little more than the text, until it is looked at again."""

    def action_act(self, act: TurnAct) -> None:
        self.post_message(TurnAsked(self.message_id, act))
