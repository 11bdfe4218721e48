"""Text that looks like markup, drives terminals, or stops half-way never breaks the chat, and is kept as it came.

MM35_STRINGS=2000 streams so many through whole chats.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from mm35local.tui.markdown_lines import Palette, layout, outline, parse
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
PALETTE = Palette("#808080", "#808080", "#808080", "#808080", "#808080", is_dark=True)
NUM_STRINGS = int(os.environ.get("MM35_STRINGS", "50"))
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=25)


def _script(pieces: list[str]) -> list[Step]:
    return [Think(pieces[0]), *map(Say, pieces), Finish()]


NUM_ANSWERS = 10
"""Of the strings, those that one chat streams."""


@pytest.mark.timeout(120 + NUM_STRINGS)
@settings(max_examples=NUM_STRINGS // NUM_ANSWERS, deadline=None)
@given(st.lists(HOSTILE, min_size=NUM_ANSWERS, max_size=NUM_ANSWERS), st.sampled_from([(80, 24), (31, 9)]))
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
    """Without a scrollbar: coming and going it would change the width."""

    CSS = "Screen { overflow: hidden; } MarkdownView { height: auto; }"

    def compose(self) -> ComposeResult:
        yield _Restless()


class _Restless(MarkdownView):
    """Lays out at every word, so that no state on the way is passed over."""

    REST = 0.0


NUM_VIEWED, NUM_EACH = 2000, 40
"""One application shows NUM_EACH of them: starting it costs more than they do."""


@settings(max_examples=NUM_VIEWED // NUM_EACH, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=10), min_size=NUM_EACH, max_size=NUM_EACH),
    st.sampled_from([(80, 24), (31, 9), (5, 5)]),
)
@example([["|a|b|\n|-|-|\n|c|d|\n\n", "> quoted\n\n", "The end.\n"]], (80, 24))
@example([["[", "\u2028", "```", "[", "```"]], (80, 24))
@example([["[a]\n\n", "[a]: b\n"]], (80, 24))
@example([["- " * 40, "x"]], (31, 9))
async def test_a_streamed_answer_looks_like_the_whole_one(answers: list[list[str]], size: tuple[int, int]) -> None:
    app = _Page()
    async with app.run_test(size=size) as pilot:
        view = app.query_one(MarkdownView)
        await pilot.pause()
        for pieces in answers:
            view.update("")
            for piece in pieces:
                view.add(piece)
            assert view.source == visible("".join(pieces))
            view.settle()
            streamed = view.lines
            await pilot.pause(0)
            view.update(view.source)
            assert view.lines == streamed
            assert ("word" in _unbroken(view.lines)) >= ("word" in _spoken(view.source))


def _unbroken(lines: list[str]) -> str:
    """A narrow screen breaks words, and a list goes on further to the right."""
    return "".join("".join(lines).split())


def _spoken(source: str) -> str:
    """The text of all that is no link, image or heading of a table: what must be on the screen."""
    tokens = [token for block in parse(source) for token in block.tokens]
    inline = [child for token in tokens for child in token.children or ()]
    return "\n".join(token.content for token in (*tokens, *inline) if token.type in ("text", "code_inline", "fence"))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join).map(visible), st.integers(1, 100))
@example("[/bold]```python\n![a](b)word", 24)
@example("999999999. 999999999. word", 24)
def test_every_word_is_shown(text: str, width: int) -> None:
    shown = "".join(segment.text.strip() for line in layout(parse(text), width, PALETTE) for segment in line)
    assert shown.count("word") >= _spoken(text).count("word")
    assert outline(text)[0] == [block.place for block in parse(text)]


def test_an_image_stands_where_it_was_written() -> None:
    text = "before ![a picture](https://example.org/a.png) after"
    (line,) = layout(parse(text), 100, PALETTE)
    assert "".join(segment.text for segment in line).strip() == "before 🌆 a picture after"
    assert {segment.style.link for segment in line if segment.style and segment.style.link} == {
        "https://example.org/a.png"
    }


def test_a_numbered_list_has_its_dots() -> None:
    lines = layout(parse("9. nine\n10. ten\n\n    more"), 100, PALETTE)
    texts = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert [text for text in texts if text] == ["  9. nine", " 10. ten", "     more"]


def test_a_link_opens_the_web_and_nothing_else() -> None:
    text = "[a](https://example.org) [b](file:///etc/passwd) [c](javascript:x) ![d](data:x)"
    (line,) = layout(parse(text), 100, PALETTE)
    assert {segment.style.link for segment in line if segment.style and segment.style.link} == {"https://example.org"}


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
