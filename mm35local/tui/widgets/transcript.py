"""The conversation, oldest first. It follows the answer as it grows until the person scrolls away.

Long conversations open at their end: only the last messages are built, `show_earlier` builds the ones before.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.scrollbar import ScrollBar
from textual.widgets import Static

from mm35local.errors import Mm35Error
from mm35local.tui.events import ModelCard
from mm35local.tui.records import Message, Role
from mm35local.tui.reply import Reply
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.growing import Column, Ground, forget_removed
from mm35local.tui.widgets.line_bar import LineBar
from mm35local.tui.widgets.notice import Notice
from mm35local.tui.widgets.question import Question
from mm35local.tui.widgets.thinking import Thinking
from mm35local.tui.widgets.turn import Turn
from mm35local.tui.widgets.welcome import Welcome

_NUM_SHOWN = 20
_NUM_MOST = 40
_NUM_ON_PAGE = 10
_NUM_AWAKE = 4
"""Messages at the end that stay laid out: they are on the screen while the next ones come."""


class Page(Column):
    """Some messages. Only the last page changes: those before it are laid out once."""


class Transcript(VerticalScroll, Ground, can_focus=False):
    def __init__(self, reason: str, place: Callable[[int], tuple[int, int]]) -> None:
        """`place` tells which of how many versions a message is, by its id."""
        super().__init__()
        self._reason = reason
        self._place = place
        self._model: ModelCard | None = None
        self._earlier: list[Message] = []
        self._earlier_line = Static(markup=False, id="earlier")

    def compose(self) -> ComposeResult:
        yield Static(id="floor")
        yield self._earlier_line
        yield Page()

    @property
    def vertical_scrollbar(self) -> ScrollBar:
        if self._vertical_scrollbar is None:
            self._vertical_scrollbar = LineBar(name="vertical")
            self._vertical_scrollbar.display = False
            self.app._start_widget(self, self._vertical_scrollbar)
        return self._vertical_scrollbar

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        """Textual paints a scroll bar after what it scrolls, as a frame of its own: here they come together."""
        is_changed = super()._size_updated(size, virtual_size, container_size, layout)
        if is_changed and self.show_vertical_scrollbar:
            self.screen._compositor.update_widgets({self.vertical_scrollbar})
        return is_changed

    async def show(self, messages: list[Message]) -> None:
        """Show a whole conversation; an empty one shows the welcome."""
        shown = messages[-_NUM_SHOWN:]
        with self.app.batch_update():
            await self.query_children(Page).remove()
            await self.mount_all(self._pages(shown) or [Page(Welcome(self._reason))])
        forget_removed()
        self.tell_model(self._model)
        self._tell_earlier(messages[:-_NUM_SHOWN])
        self.anchor(bool(shown))
        if not shown:
            self.scroll_home(animate=False)

    async def show_earlier(self) -> None:
        """Build the messages before the first one shown. That one stays where it is; if it is out of sight, it comes to
        the middle, and the new ones' end above it."""
        if not self._earlier:
            return
        first, pages = self.turns[0], self._pages(self._earlier[-_NUM_SHOWN:])
        place = first.region.y if first.region.y in self.region.line_range else self.region.y + self.size.height // 2
        self.release_anchor()
        with self.app.batch_update():
            await self.mount_all(pages, after=self._earlier_line)
            self._tell_earlier(self._earlier[:-_NUM_SHOWN])
            # Once all is laid out it is known where it stands; by itself Textual would paint that first.
            self.screen._refresh_layout()
            self.scroll_to(y=self.scroll_y + first.region.y - place, animate=False, immediate=True)
            self.screen._refresh_layout()

    def _pages(self, messages: list[Message]) -> list[Page]:
        starts = range(0, len(messages), _NUM_ON_PAGE)
        return [Page(*map(self._view, messages[start : start + _NUM_ON_PAGE])) for start in starts]

    def _tell_earlier(self, earlier: list[Message]) -> None:
        self._earlier = earlier
        self._earlier_line.update(Content(f"\n▴ {len(earlier)} earlier messages · Ctrl+Up\n" if earlier else ""))

    async def add_question(self, messages: list[Message]) -> None:
        """Show the last one of `messages`. In a conversation that grows, old ones are folded away again."""
        await self.query(Welcome).remove()
        for turn in self.turns[:-_NUM_AWAKE]:
            turn.rest()
        if len(self.turns) > _NUM_MOST:
            await self._fold()
            self._tell_earlier(messages[: -len(self.turns) - 1])
        page = self._last_page
        if len(page.children) >= _NUM_ON_PAGE:
            await self.mount(page := Page())
        await page.mount(Question(messages[-1], self._place(messages[-1].id)))

    async def _fold(self) -> None:
        """Take the oldest pages away."""
        num_left = len(self.turns)
        for page in self.query_children(Page):
            num_left -= len(page.query_children(Turn))
            if num_left < _NUM_SHOWN:
                break
            await page.remove()
        forget_removed()

    @property
    def _last_page(self) -> Page:
        return self.query_children(Page).last()

    async def add_answer(self, reply: Reply) -> Answer:
        """The answer that will grow."""
        answer = Answer(reply=reply)
        await self._last_page.mount(answer)
        self.anchor()
        return answer

    async def add_notice(self, error: Mm35Error) -> None:
        await self._last_page.mount(Notice(error))

    def tell_model(self, model: ModelCard | None) -> None:
        self._model = model
        for welcome in self.query(Welcome):
            welcome.tell(model)

    def toggle_thinking(self) -> None:
        """Fold or unfold the last thinking that there is."""
        shown = [thinking for thinking in self.query(Thinking) if thinking.display]
        if shown:
            shown[-1].collapsed = not shown[-1].collapsed

    # --- the keyboard on a message ---

    @property
    def turns(self) -> list[Turn]:
        return list(self.query(Turn))

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
        if pages < 0 and self.scroll_y <= 0 and self._earlier:
            self.run_worker(self._page_up_to_earlier(), group="earlier", exclusive=True)
        elif pages < 0:
            self.release_anchor()
            self.scroll_page_up(animate=False)
        else:
            self.scroll_page_down(animate=False)

    async def _page_up_to_earlier(self) -> None:
        await self.show_earlier()
        self.scroll_page_up(animate=False)

    def _view(self, message: Message) -> Turn:
        place = self._place(message.id)
        return Question(message, place) if message.role is Role.USER else Answer(message, place=place)
