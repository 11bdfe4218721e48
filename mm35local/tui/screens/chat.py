"""The chat: one conversation, a prompt, and what the server is doing.

Workers (the link to the server, the answer) only post messages; every change of the screen is made in a handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key, Paste

from mm35local.tui.commands import parse
from mm35local.tui.connection import Link, LinkState
from mm35local.tui.records import Attachment, MessageState
from mm35local.tui.screens.chat_commands import ChatCommands
from mm35local.tui.ui_events import AnswerEnded, LinkChanged, Submitted
from mm35local.tui.widgets.key_line import KeyLine
from mm35local.tui.widgets.turn import Turn


class ChatScreen(ChatCommands):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", tooltip="Stop the answer and keep what came"),
        Binding("ctrl+n", "new", "New", tooltip="New conversation"),
        Binding("ctrl+o", "resume", "Past", tooltip="Past conversations, and search"),
        Binding(
            "alt+up,shift+tab",
            "select",
            "Messages",
            key_display="⇧tab",
            tooltip="To the messages: edit, copy, walk",
            priority=True,
        ),
        Binding("ctrl+t", "thinking", "Thinking", tooltip="Show or hide the thinking", show=False, priority=True),
        Binding("ctrl+y", "copy", "Copy", tooltip="Copy the last answer as Markdown"),
        Binding("f3", "settings", "Settings", tooltip="Sampling, presets, colours"),
        Binding("f5", "retry", "Retry", tooltip="Look for the server now", show=False),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False, priority=True),
        Binding("ctrl+up", "earlier", "Show earlier messages", show=False, priority=True),
        Binding("f1", "help", "Keys"),
    ]

    _has_markdown = False
    """Whether its libraries are loaded, or being loaded."""

    def compose(self) -> ComposeResult:
        yield self.title_bar
        yield self.transcript
        yield self.banner
        with Vertical(id="foot"):
            yield self.prompt.completions
            yield self.pending
            yield self.prompt
            yield self.status
        yield KeyLine()

    async def on_mount(self) -> None:
        self.prompt.focus()
        self.status.tell_limit(self.session.options.max_tokens)
        # What the link loads comes behind the first frame.
        self.call_after_refresh(self.run_worker, self._watch, group="link")
        await self.session.open()
        await self.show_conversation()
        self.prompt.questions = await self.session.history.questions()
        await self.tell_history_error()

    async def _watch(self) -> None:
        def tell(link: Link) -> None:
            self.post_message(LinkChanged(link))

        await self.connection.run(tell)

    # --- what happens ---

    async def _load_markdown(self) -> None:
        """Once the link is there, so that the first answer does not wait for it; in a thread, so that keys do not."""
        await asyncio.to_thread(_load_markdown, self.app.theme_variables, self.app.current_theme.dark)

    @on(LinkChanged)
    def _link_changed(self, event: LinkChanged) -> None:
        link = event.link
        if not self._has_markdown and link.state is not LinkState.CONNECTING:
            self._has_markdown = True
            self.call_after_refresh(self.run_worker, self._load_markdown, group="markdown")
        self.banner.tell_link(link)
        self.status.tell_link(link)
        self.title_bar.tell_model(link.model)
        self.transcript.tell_model(link.model)

    @on(Submitted)
    async def _submitted(self, event: Submitted) -> None:
        if command := parse(event.text):
            self.prompt.accepted(event.text)
            await self.run_command(*command)
            return
        if self.connection.link.state in (LinkState.LOST, LinkState.FAILED):
            self.connection.wake()
        self.prompt.accepted(event.text)
        attachments = self.pending.take_attachments()
        if self.answering is not None:
            self.pending.put(event.text, attachments)
            return
        await self._ask(event.text, attachments)

    async def _ask(self, question: str, attachments: tuple[Attachment, ...]) -> None:
        edited, self.edited = self.edited, None
        if edited is not None:
            self.session.rewind(edited.id)
            self.pending.tell_edited(False)
            await self.show_conversation()
        reply = await self.session.ask(question, self.model_id, attachments)
        await self.transcript.add_question(self.session.messages)
        await self.begin(reply)

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        answer, self.answer, self.answering = self.answer, None, None
        if answer is not None:
            await answer.finish()
            await answer.tell_place(self.session.place(answer.message_id))
        self.tell_figures()
        self.refresh_bindings()
        if event.reply.error is not None:
            self.connection.wake()
        await self.tell_history_error()
        if event.reply.state is not MessageState.COMPLETE:
            self._take_back()
        elif waiting := self.pending.take():
            await self._ask(*waiting)

    def _take_back(self) -> None:
        """After a stop or an error nothing is sent unasked: what waited stands in the prompt again."""
        waiting = self.pending.take_all()
        if waiting:
            texts = [*(question for question, _ in waiting), *([self.prompt.text] if self.prompt.text else [])]
            self.pending.put_back([item for _, attachments in waiting for item in attachments])
            self.prompt.write("\n\n".join(texts))

    # --- keys ---

    def on_key(self, event: Key) -> None:
        """Whatever has the keyboard, a letter that is no key of its own is written in the prompt."""
        if event.is_printable and event.character and event.key not in self.active_bindings:
            # At once: `focus` waits its turn, and the next letter of a burst would still act on the message.
            self.set_focus(self.prompt)
            self.prompt.insert(event.character)
            event.stop()

    def on_paste(self, event: Paste) -> None:
        self.set_focus(self.prompt)
        self.prompt.post_message(event)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc is shown dim while there is nothing to stop; on a message its own keys come first."""
        if action == "select" and isinstance(self.focused, Turn):
            return False
        return True if action != "stop" or self.answering is not None or self.edited is not None else None

    def action_stop(self) -> None:
        if self.answering is not None:
            self.answering.cancel()
        elif self.edited is not None:
            self.edited = None
            self.pending.tell_edited(False)
            self.pending.tell_attachments([])
            self.prompt.write("")

    def action_select(self) -> None:
        self.transcript.select()

    def action_copy(self) -> None:
        self.command_copy("")

    async def action_new(self) -> None:
        await self.command_new("")

    def action_resume(self) -> None:
        self.command_past("")

    def action_settings(self) -> None:
        self.command_settings("")

    def action_thinking(self) -> None:
        self.transcript.toggle_thinking()

    def action_retry(self) -> None:
        self.connection.wake()

    def action_scroll(self, pages: int) -> None:
        self.transcript.scroll_pages(pages)

    async def action_earlier(self) -> None:
        await self.transcript.show_earlier()

    def action_help(self) -> None:
        self.command_help("")


def _load_markdown(theme_variables: Mapping[str, str], is_dark: bool) -> None:
    from mm35local.tui.markdown_lines import warm_up
    from mm35local.tui.widgets import markdown_view  # noqa: F401

    warm_up(theme_variables, is_dark=is_dark)
