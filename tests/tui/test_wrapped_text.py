"""Thinking while it is open: wrapped piece by piece it reads like the whole, and its length costs nothing."""

from __future__ import annotations

import time

from hypothesis import example, given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.content import Content

from mm35local.tui.plain_text import visible
from mm35local.tui.widgets.plain_view import PlainView
from mm35local.tui.wrapped_text import WrappedText
from tests.tui.test_hostile_text import PIECES

WORDS = st.sampled_from([*map(visible, PIECES), "a", "longer", "x" * 30, "字" * 15, "   "])


@given(st.lists(WORDS, max_size=60), st.integers(1, 40))
@example(["a b c dd ", "eee", "eeeee" * 5, " f"], 7)
def test_a_text_that_grows_reads_like_the_whole_one(pieces: list[str], width: int) -> None:
    wrapped = WrappedText(width)
    for piece in pieces:
        wrapped.add(piece)
    whole = Content("".join(pieces).replace("\t", "    ")).wrap(max(2, width))
    assert [line.rstrip() for line in wrapped.lines or [""]] == [line.plain.rstrip() for line in whole]


def test_closed_lines_are_not_wrapped_again() -> None:
    wrapped = WrappedText(20)
    for _ in range(500):
        before = wrapped.lines[: wrapped.num_closed]
        wrapped.add("some words more ")
        assert all(old is new for old, new in zip(before, wrapped.lines, strict=False))
    assert len(wrapped.lines) - wrapped.num_closed == 2


class _Page(App[None]):
    CSS = "Screen { overflow: hidden; } PlainView { height: auto; padding-left: 2; }"

    def compose(self) -> ComposeResult:
        yield PlainView()


async def test_a_growth_of_long_thinking_costs_what_one_of_short_thinking_costs() -> None:
    app = _Page()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.query_one(PlainView)
        await pilot.pause()
        short = _cost(view)
        view.add("words and words without an end of the line, " * 20_000)
        await pilot.pause()
        assert _cost(view) < 5 * short


def _cost(view: PlainView) -> float:
    """Seconds of CPU to lay out a growth: the least of several, since a collection of garbage may fall into one."""
    costs = []
    for _ in range(20):
        view.add("a few words of thought, ")
        start = time.process_time()
        view.get_content_height(view.size, view.size, view.size.width)
        costs.append(time.process_time() - start)
    return min(costs)
