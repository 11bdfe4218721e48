from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from textual.color import Color
from textual.css.stylesheet import Stylesheet
from textual.events import Key, Paste
from textual.widgets import OptionList

from mm35local.errors import UsageError
from mm35local.tui.app import ChatApp, run_chat
from mm35local.tui.attach import Launch
from mm35local.tui.connection import LinkState
from mm35local.tui.options import ChatOptions
from mm35local.tui.records import MessageState
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.screens.conversations import ConversationsScreen
from mm35local.tui.screens.help import HelpScreen
from mm35local.tui.widgets.answer import Answer
from mm35local.tui.widgets.banner import Banner
from mm35local.tui.widgets.key_line import KeyLine
from mm35local.tui.widgets.markdown_view import MarkdownView
from mm35local.tui.widgets.notice import Notice
from mm35local.tui.widgets.pending import Pending
from mm35local.tui.widgets.plain_view import PlainView
from mm35local.tui.widgets.question import Question
from mm35local.tui.widgets.status_line import StatusLine
from mm35local.tui.widgets.thinking import Thinking
from mm35local.tui.widgets.welcome import Welcome
from tests.fakes.chat_server import (
    ChatScript,
    ChatServer,
    Drop,
    Fail,
    Finish,
    Pause,
    Refuse,
    Say,
    Script,
    Think,
    demo_script,
    trickle,
)
from tests.tui.chat_pilot import NOWHERE, Chat, open_chat
from tests.tui.conftest import until

SIZES = [(80, 24), (160, 45), (20, 6)]


@pytest.mark.parametrize("size", SIZES)
async def test_a_streamed_answer_is_shown_and_kept_as_it_was_sent(server: ChatServer, size: tuple[int, int]) -> None:
    script = [step for step in demo_script() if not isinstance(step, Pause)]
    server.script.scripts = [script]
    said = "".join(step.text for step in script if isinstance(step, Say))
    async with open_chat(ChatOptions(server.url), size) as chat:
        assert chat.app.screen.query(Welcome)
        await chat.ask("A tour, please.")
        await chat.answered()
        assert chat.answers == [said]
        assert chat.app.session.last_answer == said
        assert not chat.app.screen.query(Welcome)
        assert "SmolLM2" in chat.text(".figures")
        assert "cached" in chat.text(".figures")
        await chat.pilot.press("f2", "pageup", "pagedown")


async def test_finished_blocks_are_not_built_again(server: ChatServer) -> None:
    server.script.scripts = [(Say("# One\n\ntwo\n\n"), Pause(0.3), *trickle("three ", 20))]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        view = chat.app.screen.query_one(MarkdownView)
        await until(lambda: len(view.laid_out) >= 5)
        first = view.laid_out[:3]
        await chat.answered()
        assert all(now is before for now, before in zip(view.laid_out, first, strict=False))
        assert view.lines[:3] == ["One", "", "two"]
        assert view.lines[4].startswith("three three")


async def test_escape_stops_and_keeps_what_came(server: ChatServer, tmp_path: Path) -> None:
    server.script.scripts = [(Say("one "), *trickle("two ", 1000)), (Say("three"),)]
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        await chat.ask("?")
        await until(lambda: chat.answers and "two" in chat.answers[0])
        await chat.pilot.press("escape")
        await chat.answered()
        await until(lambda: server.script.num_gone == 1, seconds=1)
        kept = chat.app.session.last_answer
        assert kept.startswith("one two ")
        assert chat.answers == [kept]
        assert "stopped" in chat.text(".figures")
        await chat.ask("go on")
        await chat.answered(2)
    assert server.script.requests[1]["messages"][1] == {"role": "assistant", "content": kept}
    async with open_chat(replace(options, continue_last=True)) as chat:
        assert chat.answers == [kept, "three"]
        assert chat.app.session.messages[1].outcome.state is MessageState.STOPPED
        assert "stopped" in chat.text(".figures")


async def test_past_conversations_are_listed_found_and_resumed(server: ChatServer, tmp_path: Path) -> None:
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        for number, question in enumerate(("about cats", "about [/dogs]", "about cows")):
            await chat.pilot.press("ctrl+n")
            await chat.ask(question)
            await chat.answered()
            assert len(server.script.requests[number]["messages"]) == 1
    async with open_chat(options) as chat:
        assert chat.app.screen.query(Welcome)
        await chat.pilot.press("ctrl+o")
        await until(lambda: isinstance(chat.app.screen, ConversationsScreen))
        await chat.pilot.press(*"dogs")
        await until(lambda: chat.app.screen.query_one(OptionList).option_count == 2)
        await chat.pilot.press("enter")
        await until(lambda: isinstance(chat.app.screen, ChatScreen) and chat.answers)
        assert chat.text("Question .said") == "about [/dogs]"
        assert chat.answers == ["Hello."]
        await chat.pilot.press("ctrl+o", "down", "up", "escape")
        assert isinstance(chat.app.screen, ChatScreen)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ((Think("hm"), Finish("length")), "no text: the answer was cut after its thinking"),
        ((Finish("stop"),), "no text: the answer ended by itself"),
        ((Say("a"), Finish("length")), "cut at the limit of tokens"),
    ],
)
async def test_an_answer_without_text_says_why(server: ChatServer, script: Script, told: str, tmp_path: Path) -> None:
    server.script.scripts = [script]
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        await chat.ask("?")
        await chat.answered()
        assert chat.text("Answer .figures").startswith(told)
    async with open_chat(replace(options, continue_last=True)) as chat:
        await until(lambda: chat.text("Answer .figures").startswith(told))


async def test_a_key_of_the_bottom_line_can_be_clicked(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        line = chat.app.screen.query_one(KeyLine)
        text = str(line.render())
        await chat.pilot.click(KeyLine, offset=(1 + text.index("Stop"), 0))
        assert isinstance(chat.app.screen, ChatScreen)
        await chat.pilot.click(KeyLine, offset=(1 + text.index("Past"), 0))
        await until(lambda: isinstance(chat.app.screen, ConversationsScreen))


async def test_errors_are_shown_in_line(server: ChatServer) -> None:
    server.script.scripts = [
        (Refuse(400, "the prompt has [/9001] tokens", "context_length_exceeded"),),
        (Say("half"), Fail("the engine's process ended")),
        (Drop(),),
        (Say("whole"),),
    ]
    async with open_chat(ChatOptions(server.url)) as chat:
        for number in range(1, 5):
            await chat.ask("?")
            await chat.answered(number)
            await until(chat.app.connection.ready.is_set)
        shown = chat.text("Notice")
        assert "the prompt has [/9001] tokens" in shown
        assert "Ctrl+N" in shown
        assert "the engine's process ended" in shown
        assert "the answer broke off" in shown
        assert chat.answers == ["", "half", "", "whole"]


async def test_thinking_is_folded_counted_and_opened_by_a_key(server: ChatServer) -> None:
    server.script.scripts = [(Think("[b]hm"), Pause(0.2), Think(" ah"), Say("Yes."))]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await chat.answered()
        thinking = chat.app.screen.query_one(Thinking)
        assert thinking.display
        assert thinking.has_class("-collapsed")
        assert thinking.title == "thought for 0.2 s · 2 tokens"
        await chat.pilot.press("ctrl+t")
        assert not thinking.has_class("-collapsed")
        assert thinking.query_one(PlainView).lines == ["[b]hm ah"]
        assert chat.app.session.messages[-1].reasoning == "[b]hm ah"


async def test_a_question_waits_for_a_loading_model(server: ChatServer) -> None:
    server.script.health = {"status": "loading", "progress": 0.42}
    app = ChatApp(ChatOptions(server.url))
    async with app.run_test() as pilot:
        chat = Chat(app, pilot)
        await until(lambda: app.connection.link.state is LinkState.LOADING)
        await pilot.pause()
        assert "42%" in chat.status
        await chat.ask("?")
        await pilot.pause()
        assert server.script.requests == []
        server.script.health = {}
        await chat.answered()
        assert chat.answers == ["Hello."]
        assert "ready" in chat.status
    await app.aclose()


async def test_a_lost_server_is_a_banner_and_a_retry(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        server.close()
        await chat.pilot.press("f5")
        await until(lambda: chat.app.screen.query_one(Banner).display)
        assert "no server answers" in chat.text("Banner")
        await chat.ask("are you there?")
        with ChatServer(ChatScript(), server.port):
            await chat.answered()
            assert chat.answers == ["Hello."]
            assert not chat.app.screen.query_one(Banner).display


async def test_where_nothing_answers_the_chat_stays(tmp_path: Path) -> None:
    async with open_chat(ChatOptions(NOWHERE)) as chat:
        await until(lambda: chat.app.screen.query_one(Banner).display)
        await chat.ask("?")
        await chat.pilot.press("escape")
        await chat.answered()
        assert chat.app.session.messages[-1].outcome.state is MessageState.STOPPED
    launch = Launch(("/no/such/program",), NOWHERE, tmp_path / "log")
    async with open_chat(ChatOptions(NOWHERE, launch=launch)) as chat:
        await until(lambda: "cannot be started" in chat.text("Banner"))
        assert "F5" in chat.status


async def test_a_history_that_cannot_be_used_is_told(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"no database" * 1000)
    async with open_chat(ChatOptions(server.url, history_path=path)) as chat:
        await until(lambda: chat.app.screen.query(Notice))
        assert "not kept" in chat.text("Notice")
        await chat.ask("?")
        await chat.answered()


async def test_keys_of_the_prompt(server: ChatServer, tmp_path: Path) -> None:
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")) as chat:
        await chat.pilot.press(*"one", "ctrl+j", *"more", "shift+enter", "x", "enter")
        await chat.answered()
        assert chat.text("Question .said") == "one\nmore\nx"
        await chat.pilot.press("enter", "space", "enter")
        assert len(server.script.requests) == 1
        await chat.pilot.press("backspace", *"two", "enter")
        await chat.answered(2)
        await chat.pilot.press("up")
        assert chat.prompt.text == "two"
        await chat.pilot.press("up", "up")
        assert chat.prompt.text == "one\nmore\nx"
        await chat.pilot.press("down", "down")
        assert chat.prompt.text == ""
        await chat.pilot.press("up", "a", "up")
        assert chat.prompt.text == "twoa"


async def test_copy_help_and_colours(server: ChatServer) -> None:
    server.script.scripts = [(Say("# Title\n\n`code`"),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.pilot.press("ctrl+y")
        assert chat.app.clipboard == ""
        await chat.ask("?")
        await chat.answered()
        await chat.pilot.press("ctrl+y")
        assert chat.app.clipboard == "# Title\n\n`code`"
        await chat.pilot.press("f1")
        await until(lambda: isinstance(chat.app.screen, HelpScreen))
        page = chat.text("Static")
        for told in ("Stop the answer", "New conversation", "Ctrl+Q", "Send the question"):
            assert told in page
        await chat.pilot.press("escape", "f2")
        assert not chat.app.current_theme.dark
        await chat.pilot.press("f2")
        assert chat.app.current_theme.dark


async def test_questions_wait_for_the_answer_and_lists_say_so(server: ChatServer) -> None:
    server.script.scripts = [(Say("a"), Pause(1.5)), (Say("b"),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await until(lambda: chat.answers == ["a"])
        await until(lambda: "answering" in chat.status)
        await chat.ask("and [/then]?")
        await chat.pilot.press("ctrl+n", "ctrl+o")
        assert "waits: and [/then]?" in chat.text("Pending")
        assert isinstance(chat.app.screen, ChatScreen)
        await chat.answered(2)
        assert chat.answers == ["a", "b"]
        assert not chat.app.screen.query_one(Pending).display


async def test_a_stop_gives_back_what_waited(server: ChatServer, tmp_path: Path) -> None:
    """Nothing is sent unasked after Esc: the questions stand in the prompt, before what is being written there."""
    file = tmp_path / "a.txt"
    file.write_text("text")
    server.script.scripts = [(Say("a"), Pause(30)), (Say("b"),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await until(lambda: "answering" in chat.status)
        await chat.ask(f"/attach {file}")
        await until(lambda: chat.screen.pending.attachments)
        await chat.ask("first")
        await chat.ask("second")
        await until(lambda: len(chat.screen.pending.queue) == 2)
        await chat.pilot.press("x", "escape")
        await chat.answered()
        await until(lambda: chat.prompt.text == "first\n\nsecond\n\nx")
        assert [item.name for item in chat.screen.pending.attachments] == ["a.txt"]
        assert len(server.script.requests) == 1
        await chat.pilot.press("enter")
        await chat.answered(2)
        assert chat.answers == ["a", "b"]


async def test_what_is_typed_beside_the_prompt_goes_into_it(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await chat.answered()
        await chat.pilot.click(Question)
        assert chat.prompt.has_focus
        await chat.pilot.press("shift+tab")
        assert isinstance(chat.app.focused, Answer)
        for key in ("s", "e", "["):
            chat.app.post_message(Key(key, key))
        await until(lambda: chat.prompt.text == "se[")
        await chat.pilot.press("shift+tab")
        chat.app.post_message(Paste("pasted"))
        await until(lambda: chat.prompt.text == "se[pasted")


async def test_an_idle_chat_does_not_tick(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await chat.answered()
        await chat.pilot.pause(0.3)
        status = chat.app.screen.query_one(StatusLine)
        ticks = status.num_ticks
        await chat.pilot.pause(0.6)
        assert status.num_ticks == ticks


async def test_leaving_in_mid_answer_keeps_what_came(server: ChatServer, tmp_path: Path) -> None:
    server.script.scripts = [(Say("a"), Pause(30))]
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        await chat.ask("?")
        await until(lambda: chat.answers == ["a"])
        await chat.pilot.press("ctrl+q")
    async with open_chat(replace(options, continue_last=True)) as chat:
        assert chat.answers == ["a"]
        assert chat.text("Question .said") == "?"
        assert len(chat.app.screen.query(Question)) == 1


def test_without_a_terminal_there_is_no_chat() -> None:
    with pytest.raises(UsageError, match="needs a terminal"):
        run_chat(ChatOptions(NOWHERE))


def test_markdown_is_loaded_before_the_first_answer() -> None:
    program = (
        "import asyncio, sys, time\n"
        "from mm35local.tui.app import ChatApp\n"
        "from mm35local.tui.options import ChatOptions\n"
        "async def main():\n"
        "    app = ChatApp(ChatOptions('http://127.0.0.1:9'))\n"
        "    async with app.run_test() as pilot:\n"
        "        end = time.monotonic() + 30\n"
        "        while 'pygments.lexers.python' not in sys.modules and time.monotonic() < end:\n"
        "            await pilot.pause(0.05)\n"
        "    await app.aclose()\n"
        "asyncio.run(main())\n"
        "print('mm35local.tui.widgets.markdown_view' in sys.modules, 'pygments.lexers.python' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "True True\n"


async def test_the_rules_are_read_once_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    reparse, num_reparsed = Stylesheet.reparse, 0

    def counted(stylesheet: Stylesheet) -> None:
        nonlocal num_reparsed
        num_reparsed += 1
        reparse(stylesheet)

    monkeypatch.setattr(Stylesheet, "reparse", counted)
    app = ChatApp(ChatOptions(NOWHERE, theme="mm35-light"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert num_reparsed == 0
        assert app.screen.styles.background == Color.parse("#fbf9f5")
        await pilot.press("f2")
        await pilot.pause()
        assert (num_reparsed, app.screen.styles.background) == (1, Color.parse("#16161a"))
    await app.aclose()
