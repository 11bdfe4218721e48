"""What the keys on a message do: walk, edit and send again, ask again, copy, read elsewhere, fork."""

from __future__ import annotations

import re

from textual import on

from mm35local.tui.external import view_text
from mm35local.tui.records import Message, Role
from mm35local.tui.screens.chat_base import ChatBase
from mm35local.tui.ui_events import TurnAsked
from mm35local.tui.widgets.answer import Answer

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n(.*?)(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)


def code_blocks(markdown: str) -> list[str]:
    """The text inside each fenced block."""
    return [match.group(2) for match in _FENCE.finditer(markdown)]


class ChatTurns(ChatBase):
    _code_place = (0, 0)
    """The message and the code block, counted from the end, that were copied last."""

    @on(TurnAsked)
    async def _turn_asked(self, event: TurnAsked) -> None:
        event.stop()
        match event.act:
            case "previous":
                await self.transcript.select_beside(event.message_id, -1)
            case "next":
                await self._down(event.message_id)
            case "leave":
                self.prompt.focus()
            case "thinking":
                turn = self.transcript.turn(event.message_id)
                if isinstance(turn, Answer):
                    turn.toggle_thinking()
            case "older" | "newer":
                await self._walk(event.message_id, -1 if event.act == "older" else 1)
            case _:
                await self._act_on(event)

    async def _act_on(self, event: TurnAsked) -> None:
        message = self._message(event.message_id)
        if message is None:
            return
        match event.act:
            case "copy":
                self.copy(message.content, "The message")
            case "copy_code":
                self._copy_code(message)
            case "page" | "view":
                view_text(self.app, message.content, is_edited=event.act == "view")
            case "edit":
                self.edit(message)
            case "again":
                await self.ask_again(message)
            case "fork":
                await self.fork(message)
            case _:
                raise AssertionError(event.act)

    def _message(self, message_id: int) -> Message | None:
        return next((message for message in self.session.messages if message.id == message_id), None)

    def _question_of(self, message: Message) -> Message | None:
        """The question that a message is, or that it answers."""
        place = self.session.messages.index(message)
        asked = [earlier for earlier in self.session.messages[: place + 1] if earlier.role is Role.USER]
        return asked[-1] if asked else None

    async def _down(self, message_id: int) -> None:
        turns = self.transcript.turns
        if turns and turns[-1].message_id == message_id:
            self.prompt.focus()
        else:
            await self.transcript.select_beside(message_id, 1)

    async def _walk(self, message_id: int, step: int) -> None:
        place = next((i for i, m in enumerate(self.session.messages) if m.id == message_id), None)
        if place is None or not self.is_free() or not await self.session.walk(message_id, step):
            return
        await self.show_conversation()
        self.transcript.select(self.session.messages[place].id)

    def edit(self, message: Message) -> None:
        asked = self._question_of(message)
        if asked is not None and self.is_free():
            self.edited = asked
            self.prompt.write(asked.content)
            self.pending.tell_attachments(list(asked.attachments))
            self.pending.tell_edited(True)
            self.prompt.focus()

    async def ask_again(self, message: Message) -> None:
        """Another answer to the question that `message` is or answers."""
        asked = self._question_of(message)
        if asked is None or not self.is_free():
            return
        del self.session.messages[self.session.messages.index(asked) + 1 :]
        reply = await self.session.ask_again(self.model_id)
        if reply is not None:
            await self.show_conversation()
            await self.begin(reply)
            self.prompt.focus()

    async def fork(self, message: Message) -> None:
        if self.is_free():
            await self.session.fork(message.id)
            await self.show_conversation()
            self.prompt.focus()
            self.notify("A new conversation goes on from here.", timeout=3)

    def copy(self, text: str, what: str) -> None:
        """By OSC 52, so that it reaches the clipboard of the person's own machine through ssh."""
        self.app.copy_to_clipboard(text)
        self.notify(f"{what} is in the clipboard.", timeout=2)

    def _copy_code(self, message: Message) -> None:
        blocks = code_blocks(message.content)
        if not blocks:
            self.notify("There is no code block in it.", timeout=2)
            return
        last_id, last_place = self._code_place
        place = last_place % len(blocks) + 1 if last_id == message.id else 1
        self._code_place = (message.id, place)
        self.copy(blocks[-place], f"Code block {len(blocks) - place + 1} of {len(blocks)}")
