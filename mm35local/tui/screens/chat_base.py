"""What every part of the chat screen works on: the session, the link, the widgets, and one answer at a time."""

from __future__ import annotations

import asyncio

from textual.screen import Screen
from textual.worker import Worker

from mm35local.errors import Mm35Error
from mm35local.tui.connection import Connection, LinkState
from mm35local.tui.price import tokens_of
from mm35local.tui.records import Message
from mm35local.tui.reply import Reply
from mm35local.tui.session import ChatSession
from mm35local.tui.ui_events import AnswerEnded
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.banner import Banner
from mm35local.tui.widgets.growing import Ground
from mm35local.tui.widgets.pending import Pending
from mm35local.tui.widgets.prompt import Prompt
from mm35local.tui.widgets.status_line import StatusLine
from mm35local.tui.widgets.title_bar import TitleBar
from mm35local.tui.widgets.transcript import Transcript

_QUEUE_SECONDS = 0.5


class ChatBase(Screen[None], Ground):
    def __init__(self, session: ChatSession, connection: Connection, reason: str) -> None:
        super().__init__()
        self.session = session
        self.connection = connection
        self.title_bar = TitleBar()
        self.transcript = Transcript(reason, session.place)
        self.banner = Banner()
        self.pending = Pending()
        self.prompt = Prompt()
        self.status = StatusLine()
        self.answering: Worker[None] | None = None
        self.answer: Answer | None = None
        self.edited: Message | None = None
        """The question that is being written anew; sending it opens a branch."""

    @property
    def model_id(self) -> str:
        model = self.connection.link.model
        return model.id if model else ""

    def is_free(self) -> bool:
        """False, and said so, while an answer comes."""
        if self.answering is not None:
            self.notify("An answer is coming: Esc stops it.", timeout=3)
        return self.answering is None

    async def begin(self, reply: Reply) -> None:
        """Show and stream an answer to the last question."""
        self.answer = await self.transcript.add_answer(reply)
        self.status.tell_reply(reply, self.session.num_context_tokens)
        self.title_bar.tell_title(self.session.title)
        self.answering = self.run_worker(self._stream(reply), group="answer")
        self.refresh_bindings()

    async def _stream(self, reply: Reply) -> None:
        looking = asyncio.create_task(self._look_at_queue(reply))
        try:
            await self.session.answer(reply, self.connection.ready)
        finally:
            looking.cancel()
            self.post_message(AnswerEnded(reply))

    async def _look_at_queue(self, reply: Reply) -> None:
        """While the engine has not begun with the request, ask more often how many wait."""
        await asyncio.sleep(_QUEUE_SECONDS)
        while reply.is_queued:
            if self.connection.link.state is LinkState.READY:
                self.connection.wake()
            await asyncio.sleep(_QUEUE_SECONDS)
            reply.tell_waiting(self.connection.link.num_waiting)

    async def show_conversation(self) -> None:
        await self.transcript.show(self.session.messages)
        self.title_bar.tell_title(self.session.title)
        self.tell_figures()

    def tell_figures(self) -> None:
        """What the conversation adds up to, once no answer comes."""
        self.status.tell_reply(None, self.session.num_context_tokens)
        self.status.tell_spent(*tokens_of(self.session.messages))

    def tell_error(self, error: Mm35Error) -> None:
        self.notify(error.hint, title=error.message, severity="error", markup=False)

    async def tell_history_error(self) -> None:
        if error := self.session.take_history_error():
            await self.transcript.add_notice(Mm35Error(f"this chat is not kept: {error.message}", error.hint))
