"""One answer: thinking, Markdown, and a line of figures below.

A growing answer paints itself from its `Reply`, at most `PAINTS_PER_SECOND` times a second whatever comes in;
a finished one is never painted again.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from mm35local.errors import Mm35Error
from mm35local.tui.figures import LEAST_SECONDS, count, duration, speed
from mm35local.tui.plain_text import visible
from mm35local.tui.records import Message, MessageState, Outcome
from mm35local.tui.reply import Phase, Reply
from mm35local.tui.widgets.notice import Notice
from mm35local.tui.widgets.thinking import Thinking
from mm35local.tui.widgets.tool_calls import ToolCalls
from mm35local.tui.widgets.turn import Turn

PAINTS_PER_SECOND = 7


class Answer(Turn):
    """A stored message, or a reply that grows until `finish`."""

    def __init__(
        self, message: Message | None = None, reply: Reply | None = None, place: tuple[int, int] = (1, 1)
    ) -> None:
        from mm35local.tui.widgets.markdown_view import MarkdownView  # with Markdown's libraries

        super().__init__(message.id if message else reply.message_id if reply else 0, place)
        self._reply = reply
        self._message = message
        self._body = MarkdownView(message.content if message else "")
        self._figures = Static(markup=False, classes="figures")
        # Most answers have neither: what is not there costs neither memory nor time to lay out.
        self._thinking = Thinking(message.reasoning) if message and message.reasoning else None
        self._calls = ToolCalls(message.tool_calls) if message and message.tool_calls else None
        self._num_content = 0
        self._num_reasoning = 0
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        if self._thinking is not None:
            yield self._thinking
        yield self._body
        if self._calls is not None:
            yield self._calls
        yield self._figures
        yield from self.compose_versions()

    async def on_mount(self) -> None:
        if self._reply is not None:
            self._timer = self.set_interval(1 / PAINTS_PER_SECOND, self._paint)
        elif self._message is not None:
            if self._thinking is not None:
                self._thinking.tell(False, 0, 0.0)
            await self._close(self._message.model, self._message.outcome)

    async def finish(self) -> None:
        """The reply is done: paint what is left, and the figures."""
        if self._timer is not None:
            self._timer.stop()
        await self._paint()
        self._body.settle()
        if (reply := self._reply) is not None:
            self._reply = None  # a string a token
            await self._close(reply.model, reply.outcome(), reply.error)

    async def _paint(self) -> None:
        reply = self._reply
        if reply is None:
            return
        await self._paint_thinking(reply)
        said, self._num_content = reply.content.since(self._num_content)
        if said:
            self._body.add(said)
        else:
            self._body.catch_up()
        if reply.calls:
            if self._calls is None:
                self._calls = ToolCalls()
                await self.mount(self._calls, before=self._figures)
            self._calls.tell(reply.tool_calls)

    async def _paint_thinking(self, reply: Reply) -> None:
        if not reply.reasoning.parts:
            return
        if self._thinking is None:
            self._thinking = Thinking()
            await self.mount(self._thinking, before=self._body)
        thought, self._num_reasoning = reply.reasoning.since(self._num_reasoning)
        if thought:
            self._thinking.add(thought)
        if thought or reply.phase is not Phase.ANSWERING or self._num_content == 0:
            is_thinking = reply.phase is Phase.THINKING
            self._thinking.tell(is_thinking, len(reply.reasoning.parts), reply.thinking_seconds)

    def rest(self) -> None:
        self._body.rest()

    def toggle_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.collapsed = not self._thinking.collapsed

    async def _close(self, model: str, outcome: Outcome, error: Mm35Error | None = None) -> None:
        lacks = self._lacks(outcome)
        line = figures_line(model, outcome)
        self._figures.update(Content(visible(f"{lacks} · {line}" if lacks else line)))
        self._figures.display = outcome.state is not MessageState.FAILED or bool(self._num_content or self._message)
        if error is None and outcome.error:
            error = Mm35Error(outcome.error)
        if error is not None:
            await self.mount(Notice(error), before=self._figures)

    def _lacks(self, outcome: Outcome) -> str:
        """Why there is nothing to read, of an answer that came to its end."""
        has_said = self._body.source.strip() or self._calls is not None
        if has_said or outcome.state is not MessageState.COMPLETE:
            return ""
        where = " after its thinking" if self._thinking is not None else ""
        how = "was cut" if outcome.is_cut else "ended by itself"
        return f"no text: the answer {how}{where}"


def figures_line(model: str, outcome: Outcome) -> str:
    """How the answer ended if not by itself, then tokens, speed, time, and the model."""
    parts = [_ending(outcome)]
    usage, seconds = outcome.usage, outcome.seconds
    if usage:
        parts.append(f"{count(usage.num_completion_tokens)} token{'' if usage.num_completion_tokens == 1 else 's'}")
        parts.append(speed(usage.num_completion_tokens, seconds))
    if seconds and seconds >= LEAST_SECONDS:
        parts.append(duration(seconds))
    if usage and usage.num_cached_tokens:
        parts.append(f"{count(usage.num_cached_tokens)} cached")
    return " · ".join(part for part in (*parts, model) if part)


def _ending(outcome: Outcome) -> str:
    match outcome.state:
        case MessageState.STOPPED:
            return "stopped"
        case MessageState.STREAMING:
            return "interrupted"
        case MessageState.FAILED:
            return "failed"
        case MessageState.COMPLETE:
            return "cut at the limit of tokens" if outcome.is_cut else ""
