"""The conversation, oldest first. It follows the answer as it grows until the person scrolls away.

Long conversations open at their end: only the last messages are built, `show_earlier` builds the ones before.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from mm35local.errors import Mm35Error
from mm35local.tui.events import ModelCard
from mm35local.tui.records import Message, Role
from mm35local.tui.reply import Reply
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.notice import Notice
from mm35local.tui.widgets.question import Question
from mm35local.tui.widgets.thinking import Thinking
from mm35local.tui.widgets.turn import Turn
from mm35local.tui.widgets.welcome import Welcome

_NUM_SHOWN = 20
_NUM_MOST = 40


class Transcript(VerticalScroll, can_focus=False):
    def __init__(self, reason: str, place: Callable[[int], tuple[int, int]]) -> None:
        """`place` tells which of how many versions a message is, by its id."""
        super().__init__()
        self._reason = reason
        self._place = place
        self._model: ModelCard | None = None
        self._column = Vertical(id="column")
        self._earlier: list[Message] = []
        self._earlier_line = Static(markup=False, id="earlier")

    def compose(self) -> list[Widget]:
        return [self._column]

    async def show(self, messages: list[Message]) -> None:
        """Show a whole conversation; an empty one shows the welcome."""
        self._earlier = messages[:-_NUM_SHOWN]
        shown = [self._view(message) for message in messages[-_NUM_SHOWN:]]
        with self.app.batch_update():
            await self._column.remove_children()
            if shown:
                await self._column.mount_all([self._earlier_line, *shown])
            else:
                await self._column.mount(Welcome(self._reason))
                self.tell_model(self._model)
        self._tell_earlier()
        self.anchor(bool(shown))
        if not shown:
            self.scroll_home(animate=False)

    async def show_earlier(self) -> None:
        """Build the messages before the first one shown."""
        if not self._earlier:
            return
        views = [self._view(message) for message in self._earlier[-_NUM_SHOWN:]]
        del self._earlier[-_NUM_SHOWN:]
        self.release_anchor()
        await self._column.mount_all(views, after=self._earlier_line)
        self._tell_earlier()

    def _tell_earlier(self) -> None:
        number = len(self._earlier)
        self._earlier_line.display = bool(number)
        self._earlier_line.update(Content(f"▴ {number} earlier messages · Ctrl+Up"))

    async def add_question(self, messages: list[Message]) -> None:
        """Show the last one of `messages`. In a conversation that grows, old ones are folded away again."""
        await self._column.query(Welcome).remove()
        if len(turns := self.turns) > _NUM_MOST:
            await self._column.remove_children(turns[:-_NUM_SHOWN])
            self._earlier = messages[: -_NUM_SHOWN - 1]
            if not self._earlier_line.is_attached:
                await self._column.mount(self._earlier_line, before=0)
            self._tell_earlier()
        await self._column.mount(Question(messages[-1], self._place(messages[-1].id)))

    async def add_answer(self, reply: Reply) -> Answer:
        """The answer that will grow."""
        answer = Answer(reply=reply)
        await self._column.mount(answer)
        self.anchor()
        return answer

    async def add_notice(self, error: Mm35Error) -> None:
        await self._column.mount(Notice(error))

    def tell_model(self, model: ModelCard | None) -> None:
        self._model = model
        for welcome in self._column.query(Welcome):
            welcome.tell(model)

    def toggle_thinking(self) -> None:
        """Fold or unfold the last thinking that there is."""
        shown = [thinking for thinking in self._column.query(Thinking) if thinking.display]
        if shown:
            shown[-1].collapsed = not shown[-1].collapsed

    # --- the keyboard on a message ---

    @property
    def turns(self) -> list[Turn]:
        return list(self._column.query_children(Turn))

    def turn(self, message_id: int) -> Turn | None:
        return next((turn for turn in self.turns if turn.message_id == message_id), None)

    def select(self, message_id: int | None = None) -> None:
        """Put the keyboard on a message; on the last one without an id."""
        turn = self.turn(message_id) if message_id else next(reversed(self.turns), None)
        if turn is not None:
            self.release_anchor()
            turn.focus(scroll_visible=False)
            self.scroll_to_widget(turn, animate=False)

    async def select_beside(self, message_id: int, step: int) -> None:
        """The message before (-1) or after (1); past the first one, earlier ones are built."""
        ids = [turn.message_id for turn in self.turns]
        place = ids.index(message_id) + step if message_id in ids else len(ids) - 1
        if place < 0 and self._earlier:
            await self.show_earlier()
            ids = [turn.message_id for turn in self.turns]
            place = ids.index(message_id) - 1
        if 0 <= place < len(ids):
            self.select(ids[place])

    def scroll_pages(self, pages: int) -> None:
        if pages < 0:
            self.release_anchor()
            if self.scroll_y <= 0:
                self.run_worker(self.show_earlier(), group="earlier", exclusive=True)
            self.scroll_page_up(animate=False)
        else:
            self.scroll_page_down(animate=False)

    def _view(self, message: Message) -> Turn:
        place = self._place(message.id)
        return Question(message, place) if message.role is Role.USER else Answer(message, place=place)
