"""The line under the prompt: why it is silent or how fast it writes, and how full the context is.

It ticks only while an answer comes or a model loads; an idle chat costs nothing.
"""

from __future__ import annotations

from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from mm35local.tui.connection import Link, LinkState
from mm35local.tui.figures import bar, count, duration, load_rate, speed
from mm35local.tui.price import dollars, hosted_usd
from mm35local.tui.reply import Phase, Reply

_TICKS_PER_SECOND = 3
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BAR_CELLS = 12


class StatusLine(Widget):
    """One row, drawn as a whole: a change of its text never makes the screen lay itself out again."""

    def __init__(self) -> None:
        super().__init__()
        self.num_ticks = 0
        self._link = Link(LinkState.CONNECTING)
        self._reply: Reply | None = None
        self._num_tokens = 0
        self._spent = (0, 0)
        self._max_tokens: int | None = None
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self._timer = self.set_interval(1 / _TICKS_PER_SECOND, self._tick)
        self._update()

    def tell_link(self, link: Link) -> None:
        self._link = link
        self._update()

    def tell_reply(self, reply: Reply | None, num_context_tokens: int) -> None:
        """The answer that is coming, None once there is none; and the tokens of the conversation before it."""
        self._reply = reply
        self._num_tokens = num_context_tokens
        self._update()

    def tell_spent(self, num_input: int, num_output: int) -> None:
        """Tokens read and written over the whole conversation."""
        self._spent = (num_input, num_output)
        self.refresh()

    def tell_limit(self, max_tokens: int | None) -> None:
        """The most tokens asked of an answer: so many fewer may stand before it."""
        self._max_tokens = max_tokens
        self.refresh()

    def render(self) -> Content:
        """What it does, then as much of the rest as there is room for: context first, then cards, then the price."""
        width = self.content_size.width
        left, right = self._doing(), self._filling(is_short=width < 60)
        if left.cell_length + right.cell_length + 2 > width:
            right = self._filling(is_short=True)
        if left.cell_length + right.cell_length + 2 > width:
            return left.truncate(width, ellipsis=True)
        for more in (self._cards(), self._cost()):
            if left.cell_length + more.cell_length + right.cell_length + 2 <= width:
                left += more
        return Content.assemble(left, " " * (width - left.cell_length - right.cell_length), right)

    def _tick(self) -> None:
        self.num_ticks += 1
        self.refresh()

    def _update(self) -> None:
        is_busy = self._reply is not None or self._link.state in (LinkState.CONNECTING, LinkState.LOADING)
        if self._timer is not None:
            (self._timer.resume if is_busy else self._timer.pause)()
        self.refresh()

    def _doing(self) -> Content:
        spinner = (_SPINNER[self.num_ticks % len(_SPINNER)] + " ", "$text-accent")
        match self._link.state:
            case LinkState.CONNECTING:
                return Content.assemble(spinner, "connecting")
            case LinkState.LOADING:
                share = self._link.progress
                return Content.assemble(
                    spinner,
                    "loading the model ",
                    (bar(share, _BAR_CELLS), "$primary on $panel"),
                    f" {share:.0%}{load_rate(self._link.bytes_per_second, self._link.eta_seconds)}",
                    (" · what you send waits for it" if self._reply is not None else "", "$foreground 60%"),
                )
            case LinkState.LOST:
                return Content.styled("✗ no connection", "$text-error")
            case LinkState.FAILED:
                return Content.styled("✗ no model · F5 tries again", "$text-error")
        if self._reply is None:
            return Content.assemble(("● ", "$text-success"), "ready")
        return Content.assemble(spinner, _progress(self._reply))

    def _cards(self) -> Content:
        sizes = " + ".join(f"{size / (1 << 30):.1f}" for _, size in self._link.cards)
        return Content.styled(f" · GPU {sizes} GiB" if sizes else "", "$foreground 60%")

    def _cost(self) -> Content:
        num_input, num_output = self._spent
        if not num_output or self._reply is not None:
            return Content()
        usd = dollars(hosted_usd(num_input, num_output))
        spent = f" · {count(num_input)} in, {count(num_output)} out · hosted: {usd}"
        return Content.styled(spent, "$foreground 60%")

    def _filling(self, is_short: bool) -> Content:
        """How full the context is; the figure alone if `is_short`."""
        n_ctx = self._link.model.n_ctx if self._link.model else 0
        num_tokens = self._num_tokens
        if reply := self._reply:
            num_tokens = (reply.prefill.num_total if reply.prefill else num_tokens) + reply.num_tokens
        if not n_ctx:
            return Content()
        # The server refuses a prompt that leaves no room for max_tokens, or for one token.
        refused = max(1, n_ctx - (self._max_tokens or 1) + 1)
        share = num_tokens / refused
        figure = f"{count(num_tokens)} / {count(refused)}"
        if is_short:
            return Content.styled(figure, "$foreground 60%")
        colour = "$error" if share > 0.95 else "$warning" if share > 0.8 else "$secondary"
        return Content.assemble(
            ("context ", "$foreground 60%"),
            (bar(share, _BAR_CELLS), f"{colour} on $panel"),
            (f" {figure}", "$foreground 60%"),
        )


def _progress(reply: Reply) -> str:
    if reply.is_queued and reply.num_before is not None:
        before = f"at most {reply.num_before} before you" if reply.num_before else "next in the queue"
        return f"waiting · {before} · {duration(reply.seconds)}"
    match reply.phase:
        case Phase.WAITING:
            return f"waiting · {duration(reply.seconds)}"
        case Phase.PREFILL:
            return _reading(reply)
        case Phase.THINKING:
            return f"thinking · {duration(reply.thinking_seconds)} · {count(reply.num_tokens)} tokens"
        case _:
            parts = ("answering", speed(reply.num_tokens, reply.decode_seconds), f"{count(reply.num_tokens)} tokens")
            return " · ".join(filter(None, parts))


def _reading(reply: Reply) -> str:
    """How far the prompt is read, how long it still takes, and what the cache saved."""
    read = reply.prefill
    if read is None or not read.num_total:
        return f"reading the prompt · {duration(reply.seconds)}"
    eta = reply.prefill_eta_seconds
    left = f" · {duration(eta)} left" if eta is not None and read.num_done < read.num_total else ""
    saved = f" · {count(read.num_cached)} from the cache" if read.num_cached else ""
    return f"reading {count(read.num_done)} / {count(read.num_total)} tokens{left}{saved}"
