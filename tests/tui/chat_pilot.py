"""The chat under a pilot: what a test presses, and what it sees."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from textual.pilot import Pilot
from textual.widgets import Static

from mm35local.tui.app import ChatApp
from mm35local.tui.options import ChatOptions
from mm35local.tui.records import Role
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.markdown_view import MarkdownView
from mm35local.tui.widgets.prompt import Prompt
from mm35local.tui.widgets.status_line import StatusLine
from tests.tui.conftest import until

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there."""


class Chat:
    """A running chat and what a test asks of it."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot
        assert isinstance(app.screen, ChatScreen)
        self.screen = app.screen
        self.prompt = app.screen.query_one(Prompt)

    async def ask(self, question: str) -> None:
        self.prompt.text = question
        await self.pilot.press("enter")

    async def answered(self, num_answers: int = 1) -> None:
        """Until that many answers are there, and shown."""

        def is_done() -> bool:
            answers = [m for m in self.app.session.messages if m.role is Role.ASSISTANT]
            return len(answers) == num_answers and self.screen.answering is None

        await until(is_done)
        await self.pilot.pause()

    @property
    def answers(self) -> list[str]:
        return [answer.query_one(MarkdownView).source for answer in self.app.screen.query(Answer)]

    @property
    def status(self) -> str:
        return str(self.app.screen.query_one(StatusLine).render())

    def text(self, selector: str) -> str:
        return "\n".join(str(widget.content) for widget in self.app.screen.query(selector).results(Static))


@contextlib.asynccontextmanager
async def open_chat(options: ChatOptions, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Chat]:
    app = ChatApp(options)
    try:
        async with app.run_test(size=size, tooltips=True, notifications=True) as pilot:
            chat = Chat(app, pilot)
            if options.url != NOWHERE:
                await until(app.connection.ready.is_set)
            await pilot.pause()
            yield chat
    finally:
        await app.aclose()
