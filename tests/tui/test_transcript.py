"""The conversation on the screen: where it stands, what is built of a long one, and what goes again."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import RenderableType
from textual._arrange import arrange
from textual._styles_cache import StylesCache
from textual.geometry import Size
from textual.layout import DockArrangeResult
from textual.screen import Screen
from textual.widget import Widget

from mm35local.tui.history import History
from mm35local.tui.options import ChatOptions
from mm35local.tui.records import Message, Role, as_path
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.markdown_view import MarkdownView
from tests.fakes.chat_server import ChatServer, Pause, Say, trickle
from tests.tui.chat_pilot import open_chat
from tests.tui.conftest import until


async def test_long_conversations_open_at_their_end(server: ChatServer, tmp_path: Path) -> None:
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        for _ in range(30):
            reply = await chat.app.session.ask("q", "m")
            await chat.app.session.answer(reply, chat.app.connection.ready)
    async with open_chat(replace(options, continue_last=True)) as chat:
        await until(lambda: len(chat.app.screen.query(Answer)) == 10)
        assert "40 earlier messages" in chat.text("#earlier")
        await chat.pilot.press("ctrl+up")
        await until(lambda: len(chat.app.screen.query(Answer)) == 20)
        for _ in range(20):
            await chat.pilot.press("pageup")
        await until(lambda: len(chat.app.screen.query(Answer)) == 30)
        await chat.pilot.press("ctrl+up")
        for number in range(31, 33):
            await chat.ask("more")
            await chat.answered(number)
        await until(lambda: len(chat.app.screen.query(Answer)) == 12)
        assert "40 earlier messages" in chat.text("#earlier")


async def test_earlier_messages_come_above_what_is_read(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    history = History(path)
    await history.open()
    number = await history.start_conversation("long", "m")
    said = [Message((Role.USER, Role.ASSISTANT)[i % 2], f"{i}\n\n- a\n- b") for i in range(60)]
    await history.add_tree(number, as_path(said))
    await history.close()
    async with open_chat(ChatOptions(server.url, history_path=path, continue_last=True)) as chat:
        transcript = chat.screen.transcript
        await until(lambda: len(transcript.turns) == 20)
        first = transcript.turns[0]
        assert first.region.y < transcript.region.y
        # From the end: the first one comes into sight.
        await chat.pilot.press("ctrl+up")
        await until(lambda: len(transcript.turns) == 40)
        await chat.pilot.pause()
        assert first.region.y == transcript.region.y + transcript.size.height // 2
        # From the top: it stays where it is.
        transcript.scroll_home(animate=False)
        await chat.pilot.pause()
        first, place = transcript.turns[0], transcript.turns[0].region.y
        await chat.pilot.press("ctrl+up")
        await until(lambda: len(transcript.turns) == 60)
        await chat.pilot.pause()
        assert first.region.y == place
        assert transcript.turns[19].region.bottom <= place


async def test_page_up_goes_on_into_earlier_messages(server: ChatServer, tmp_path: Path) -> None:
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        for _ in range(15):
            reply = await chat.app.session.ask("q", "m")
            await chat.app.session.answer(reply, chat.app.connection.ready)
    async with open_chat(replace(options, continue_last=True)) as chat:
        transcript = chat.screen.transcript
        await until(lambda: len(transcript.turns) == 20)
        transcript.scroll_home(animate=False)
        await chat.pilot.pause()
        first = transcript.turns[0]
        await chat.pilot.press("pageup")
        await until(lambda: len(transcript.turns) == 30)
        await chat.pilot.pause()
        assert 0 < first.region.y - transcript.region.bottom < 5


async def test_a_scroll_bar_is_no_frame_of_its_own(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script.scripts = [trickle("word and word\n\n", 60)]
    async with open_chat(ChatOptions(server.url)) as chat:
        frames: list[set[str]] = []
        display = chat.app._display

        def count(screen: Screen[object], update: RenderableType | None) -> None:
            if update is not None:
                frames.append({type(widget).__name__ for widget in screen._dirty_widgets})
            display(screen, update)

        monkeypatch.setattr(chat.app, "_display", count)
        await chat.ask("?")
        await chat.answered()
        assert sum("MarkdownView" in frame for frame in frames) > 5
        assert sum(frame == {"LineBar"} for frame in frames) <= 1


async def test_the_scroll_bar_looks_like_textuals(server: ChatServer) -> None:
    server.script.scripts = [(Say("word\n\n" * 40),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await chat.answered()
        transcript = chat.screen.transcript
        bar = transcript.vertical_scrollbar
        for place in (0.0, 7.0, transcript.scroll_y):
            transcript.release_anchor()
            transcript.scroll_to(y=place, animate=False)
            await chat.pilot.pause()
            lines = bar.render_lines(bar.size.region)
            bar.refresh()
            assert lines == Widget.render_lines(bar, bar.size.region)
            assert len({line.text for line in lines}) > 1 or place == 0


async def test_a_growing_answer_costs_no_layout_beside_it(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script.scripts = [(Say("Hello."),), (Say("Hello."),), trickle("word and word\n\n", 150)]
    arranged: list[Widget] = []

    def count(widget: Widget, children: Sequence[Widget], size: Size, screen: Size, optimal: bool) -> DockArrangeResult:
        arranged.append(widget)
        return arrange(widget, children, size, screen, optimal)

    async with open_chat(ChatOptions(server.url)) as chat:
        for number in (1, 2):
            await chat.ask("?")
            await chat.answered(number)
        monkeypatch.setattr("textual.widget.arrange", count)
        await chat.ask("?")
        await until(lambda: len(chat.answers) == 3 and "word" in chat.answers[-1])
        transcript = chat.screen.transcript
        await until(lambda: transcript.virtual_size.height > 2 * transcript.size.height)  # the bar has come by then
        *before, growing = transcript.turns
        arranged.clear()
        await chat.answered(3)
        assert arranged.count(growing) > 3
        assert [turn for turn in before if turn in arranged] == []


async def test_words_on_the_same_line_cost_no_layout(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script.scripts = [[*trickle("word ", 16, 0.05), Pause(1.0), *trickle("word ", 184, 0.001)]]
    async with open_chat(ChatOptions(server.url), (120, 24)) as chat:
        await chat.ask("?")
        await until(lambda: chat.answers[-1:] != [] and "word" in chat.answers[-1])
        await chat.pilot.pause(0.1)
        laid_out: list[int] = []
        lay_out = chat.screen._refresh_layout

        def count(size: Size | None = None, scroll: bool = False) -> None:
            laid_out.append(len(chat.answers[-1]))
            lay_out(size, scroll)

        monkeypatch.setattr(chat.screen, "_refresh_layout", count)
        view = chat.app.screen.query(MarkdownView).last()
        shown = {0}
        while max(shown) < 16:
            await chat.pilot.pause(0.02)
            lines = [strip.text for strip in chat.screen._compositor.render_strips()]
            shown.add("\n".join(lines).count("word"))
        assert laid_out == []
        assert len(shown) > 3
        await chat.answered()
        assert laid_out != []
        assert " ".join(line.strip() for line in view.lines) == "word " * 199 + "word"


async def test_folded_messages_are_let_go(server: ChatServer) -> None:
    """The collector sees no view but those on the screen, and old ones hold no more than their text."""
    server.script.scripts = [(Say("- a\n- b\n"),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        for number in range(1, 31):
            await chat.ask("?")
            await chat.answered(number)
        shown = list(chat.app.screen.query(MarkdownView))
        assert len(shown) < 25
        assert not any(view.laid_out for view in shown[:-3])
        assert shown[0].lines == [" • a", " • b"]
        gc.collect()
        widgets = [item for item in gc.get_objects() if isinstance(item, Widget)]
        kept = [view for view in widgets if isinstance(view, MarkdownView) and view.app is chat.app]
        assert set(kept) == set(shown)
        of_widgets = {id(widget._styles_cache) for widget in widgets}
        caches = [item for item in gc.get_objects() if isinstance(item, StylesCache)]
        assert [cache for cache in caches if id(cache) not in of_widgets] == []


async def test_a_short_conversation_stands_at_the_top_and_a_long_one_at_its_end(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url), (80, 24)) as chat:
        for number in range(1, 8):
            await chat.ask("?")
            await chat.answered(number)
            turns, region = chat.screen.transcript.turns, chat.screen.transcript.region
            if number == 1:
                assert turns[0].region.y - region.y == 1
        assert turns[0].region.bottom < region.y
        assert region.bottom - turns[-1].region.bottom <= 2
