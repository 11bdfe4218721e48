from __future__ import annotations

import time

from hypothesis import example, given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from mm35local.tui.growing_fence import WINDOW, GrowingFence
from mm35local.tui.markdown_lines import Line, Palette, layout, parse
from mm35local.tui.widgets.markdown_view import MarkdownView

PALETTE = Palette("#808080", "#808080", "#808080", "#808080", "#808080", is_dark=True)
CODE_LINES = st.sampled_from(["", "", "  ", "\tx = 1", "字" * 20, "def f(): return [1]", '"""', "# a long remark " * 4])


def _texts(lines: list[Line]) -> list[str]:
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@given(st.lists(CODE_LINES, max_size=6 * WINDOW), st.integers(1, 90), st.integers(24, 60))
@example([""] * 5 * WINDOW, 7, 40)
def test_a_fence_that_grows_reads_like_the_whole_one(code: list[str], step: int, width: int) -> None:
    fence = GrowingFence()
    for end in [*range(0, len(code), step), len(code)]:
        (block,) = parse("```python\n" + "".join(f"{line}\n" for line in code[:end]))
        assert _texts(fence.lines(block, width, PALETTE)) == _texts(layout([block], width, PALETTE))


_MOST_CPU_SECONDS = 6.0
"""Half a second here; laid out whole at each line it is more than twenty."""


class _Page(App[None]):
    CSS = "Screen { overflow: hidden; } MarkdownView { height: auto; }"

    def compose(self) -> ComposeResult:
        yield MarkdownView()


async def test_a_long_block_leaves_the_chat_time_and_is_whole_in_the_end() -> None:
    """Each kind of block grows to 600 lines, a line at a time: a repaint at each would take minutes."""
    kinds = ("```python\n", "f(1)\n"), ("", "- a point\n"), ("|a|b|\n|-|-|\n", "|c|d|\n")
    app = _Page()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.query_one(MarkdownView)
        await pilot.pause()
        for head, line in kinds:
            view.update(head)
            laying_out = 0.0
            for _ in range(600):
                before = time.process_time()
                view.add(line)
                laying_out += time.process_time() - before
                await pilot.pause(0.001)
            assert laying_out < _MOST_CPU_SECONDS
            view.settle()
            shown = view.lines
            view.update(view.source)
            assert view.lines == shown
