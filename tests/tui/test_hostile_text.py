"""Text that looks like markup, drives terminals, or stops half-way never breaks the chat, and is kept as it came."""

from __future__ import annotations

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.widgets import Static

from mm35local.tui.options import ChatOptions
from mm35local.tui.plain_text import encodable, visible
from mm35local.tui.ui_events import Submitted
from mm35local.tui.widgets.markdown_view import MarkdownView
from tests.fakes.chat_server import ChatScript, ChatServer, Finish, Say, Step, Think
from tests.tui.chat_pilot import open_chat

PIECES = [
    *("[", "]", "[/", "[[", "[/bold]", "[@click=app.quit]x[/]", "$primary", "{", "}", "\\", "\\["),
    *("\x1b[31m", "\x1b]52;c;x\x07", "\x9b2J", "\x00", "\x07", "\x08", "\r", "\t", "\x0b", "\x0c", "\x7f"),
    *("```", "```python\n", "~~~", "`", "*", "**", "_", "~~", "# ", "###### ", "\n", "\n\n", "\n---\n", "    "),
    *("- ", "1. ", "999999999. ", "> ", "|a|b|\n|-|-|\n", "|[/x]|", "|", "<b>", "<!--", "&amp;", "[^1]", "[a]: b\n"),
    *("![a](b)", "[a](javascript:x)", "https://example.org/['\"]", "](", "\u2028", "\u2029", "\x85", "\u202e"),
    *("字", "\u0301", "👩‍👩‍👧", "e\u0301", "\ufeff", "\u200b", "word", " "),
]
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=25)


def _script(pieces: list[str]) -> list[Step]:
    return [Think(pieces[0]), *map(Say, pieces), Finish()]


@settings(max_examples=10, deadline=None)
@given(st.lists(HOSTILE, min_size=5, max_size=5), st.sampled_from([(80, 24), (31, 9)]))
async def test_any_answer_is_shown_and_kept(answers: list[list[str]], size: tuple[int, int]) -> None:
    script = ChatScript(scripts=[_script(pieces) for pieces in answers])
    with ChatServer(script) as server:
        async with open_chat(ChatOptions(server.url), size) as chat:
            for number, pieces in enumerate(answers, start=1):
                question = "?" + "".join(pieces)
                chat.app.screen.post_message(Submitted(question))
                await chat.answered(number)
                assert chat.app.session.messages[-1].outcome.error is None
                assert chat.app.session.messages[-1].content == "".join(pieces)
                assert chat.app.session.messages[-2].content == question
            await chat.pilot.press("ctrl+t", "pageup")
            assert chat.answers == [visible("".join(pieces)) for pieces in answers]


class _Page(App[None]):
    def compose(self) -> ComposeResult:
        yield MarkdownView()

    def texts(self) -> list[str]:
        return [str(widget.render()) for widget in self.query("MarkdownView *").results(Static)]


NUM_VIEWS = 40
"""Of 2,000 strings, those that one application shows: starting it costs more than they do."""


@settings(max_examples=2000 // NUM_VIEWS, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=10), min_size=NUM_VIEWS, max_size=NUM_VIEWS), st.booleans())
@example([["|a|b|\n|-|-|\n|c|d|\n\n", "> quoted\n\n", "The end.\n"]], True)
@example([["[", "\u2028", "```", "[", "```"]], False)
@example([["[a]\n\n", "[a]: b\n"]], False)
async def test_a_streamed_answer_looks_like_the_whole_one(answers: list[list[str]], at_once: bool) -> None:
    app = _Page()
    async with app.run_test():
        view = app.query_one(MarkdownView)
        for pieces in answers:
            await view.update("")
            if at_once:
                await asyncio.gather(*map(view.add, pieces))
            else:
                for piece in pieces:
                    await view.add(piece)
            assert view.source == visible("".join(pieces))
            await view.settle()
            streamed = app.texts()
            await view.update(view.source)
            assert app.texts() == streamed


async def test_a_mouse_over_a_table_cell_of_markup() -> None:
    table = "|[/a]|b|\n|-|-|\n|[/x]|[[|\n|[/y]|z|\n"
    with ChatServer(ChatScript(scripts=[[Say(table)], [Say(line + "\n") for line in table.splitlines()]])) as server:
        async with open_chat(ChatOptions(server.url)) as chat:
            for number in (1, 2):
                await chat.ask("?")
                await chat.answered(number)
            chat.app.TOOLTIP_DELAY = 0.01
            cells = list(chat.app.screen.query("MarkdownTableContent > *"))
            assert len(cells) >= 12
            for cell in cells:
                cell.scroll_visible(animate=False)
                await chat.pilot.hover(cell)
                await chat.pilot.pause(0.1)


@given(st.text())
def test_visible_text_drives_no_terminal(text: str) -> None:
    shown = visible(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown if c not in "\n\t")
    assert visible(shown) == shown


def test_visible_text_stays_readable() -> None:
    assert visible("a\x1b[0m\r\nb\u202ec\u2028d\te") == "a␛[0m\nbc\nd\te"


@given(st.text(st.characters()))
def test_encodable_text_is_utf8_and_otherwise_untouched(text: str) -> None:
    clean = encodable(text)
    clean.encode()
    assert len(clean) == len(text)
    assert all(a == b or 0xD800 <= ord(a) < 0xE000 for a, b in zip(text, clean, strict=True))
