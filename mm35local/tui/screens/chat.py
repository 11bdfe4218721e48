"""The chat: one conversation, a prompt, and what the server is doing.

Workers (the link to the server, the answer) only post messages; every change of the screen is made in a handler.
"""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Footer
from textual.worker import Worker

from mm35local.errors import Mm35Error
from mm35local.tui.connection import Connection, Link, LinkState
from mm35local.tui.reply import Reply
from mm35local.tui.screens.conversations import ConversationsScreen
from mm35local.tui.screens.help import HelpScreen
from mm35local.tui.session import ChatSession
from mm35local.tui.ui_events import AnswerEnded, LinkChanged, Submitted
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.banner import Banner
from mm35local.tui.widgets.prompt import Prompt
from mm35local.tui.widgets.status_line import StatusLine
from mm35local.tui.widgets.title_bar import TitleBar
from mm35local.tui.widgets.transcript import Transcript


class ChatScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", tooltip="Stop the answer and keep what came"),
        Binding("ctrl+n", "new", "New", tooltip="New conversation"),
        Binding("ctrl+o", "resume", "Past", tooltip="Past conversations"),
        Binding("ctrl+t", "thinking", "Thinking", tooltip="Show or hide the thinking", show=False, priority=True),
        Binding("ctrl+y", "copy", "Copy", tooltip="Copy the last answer as Markdown"),
        Binding("f5", "retry", "Retry", tooltip="Look for the server now", show=False),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False, priority=True),
        Binding("ctrl+up", "earlier", "Show earlier messages", show=False, priority=True),
        Binding("f1", "help", "Keys"),
    ]

    def __init__(self, session: ChatSession, connection: Connection, reason: str) -> None:
        super().__init__()
        self._session = session
        self._connection = connection
        self._title_bar = TitleBar()
        self._transcript = Transcript(reason)
        self._banner = Banner()
        self._prompt = Prompt()
        self._status = StatusLine()
        self._answering: Worker[None] | None = None
        self._answer: Answer | None = None

    def compose(self) -> ComposeResult:
        yield self._title_bar
        yield self._transcript
        yield self._banner
        with Vertical(id="foot"):
            yield self._prompt
            yield self._status
        yield Footer(compact=True, show_command_palette=False)

    async def on_mount(self) -> None:
        self._prompt.focus()
        self.run_worker(self._watch(), group="link")
        await self._session.open()
        await self._show_conversation()
        self._prompt.questions = await self._session.questions()
        await self._tell_history_error()

    # --- workers ---

    async def _watch(self) -> None:
        def tell(link: Link) -> None:
            self.post_message(LinkChanged(link))

        await self._connection.run(tell)

    async def _stream(self, reply: Reply) -> None:
        try:
            await self._session.answer(reply, self._connection.ready)
        finally:
            self.post_message(AnswerEnded(reply))

    # --- what happens ---

    @on(LinkChanged)
    def _link_changed(self, event: LinkChanged) -> None:
        link = event.link
        self._banner.tell_link(link)
        self._status.tell_link(link)
        self._title_bar.tell_model(link.model)
        self._transcript.tell_model(link.model)

    @on(Submitted)
    async def _submitted(self, event: Submitted) -> None:
        if self._answering is not None:
            self.notify("An answer is coming: Esc stops it.", timeout=3)
            return
        if self._connection.link.state in (LinkState.LOST, LinkState.FAILED):
            self._connection.wake()
        self._prompt.accepted(event.text)
        model = self._connection.link.model
        reply = await self._session.ask(event.text, model.id if model else "")
        self._answer = await self._transcript.add_turn(event.text, reply)
        self._status.tell_reply(reply, self._session.num_context_tokens)
        self._title_bar.tell_title(self._session.title)
        self._answering = self.run_worker(self._stream(reply), group="answer")
        self.refresh_bindings()

    @on(AnswerEnded)
    async def _answer_ended(self, event: AnswerEnded) -> None:
        answer, self._answer, self._answering = self._answer, None, None
        if answer is not None:
            await answer.finish()
        self._status.tell_reply(None, self._session.num_context_tokens)
        self.refresh_bindings()
        if event.reply.error is not None:
            self._connection.wake()
        await self._tell_history_error()

    async def _show_conversation(self) -> None:
        await self._transcript.show(self._session.messages)
        self._title_bar.tell_title(self._session.title)
        self._status.tell_reply(None, self._session.num_context_tokens)

    async def _tell_history_error(self) -> None:
        if error := self._session.take_history_error():
            await self._transcript.add_notice(Mm35Error(f"this chat is not kept: {error.message}", error.hint))

    # --- keys ---

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc is shown dim while there is nothing to stop."""
        return True if action != "stop" or self._answering is not None else None

    def action_stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def action_new(self) -> None:
        if self._is_free():
            self._session.start_over()
            await self._show_conversation()

    def action_resume(self) -> None:
        if self._is_free():
            self.run_worker(self._choose_conversation(), group="resume", exclusive=True)

    async def _choose_conversation(self) -> None:
        try:
            conversations = await self._session.conversations()
            chosen = await self.app.push_screen_wait(ConversationsScreen(conversations))
            if chosen is not None:
                await self._session.resume(chosen)
                await self._show_conversation()
        except Mm35Error as error:
            self.notify(error.hint, title=error.message, severity="error", markup=False)

    def _is_free(self) -> bool:
        if self._answering is not None:
            self.notify("An answer is coming: Esc stops it.", timeout=3)
        return self._answering is None

    def action_copy(self) -> None:
        if text := self._session.last_answer:
            self.app.copy_to_clipboard(text)
            self.notify("The last answer is in the clipboard.", timeout=2)
        else:
            self.notify("No answer to copy yet.", timeout=2)

    def action_thinking(self) -> None:
        self._transcript.toggle_thinking()

    def action_retry(self) -> None:
        self._connection.wake()

    def action_scroll(self, pages: int) -> None:
        self._transcript.scroll_pages(pages)

    async def action_earlier(self) -> None:
        await self._transcript.show_earlier()

    def action_help(self) -> None:
        groups = [("Chat", self.BINDINGS), ("Prompt", Prompt.BINDINGS), ("Program", self.app.BINDINGS)]
        self.app.push_screen(HelpScreen(groups))
