"""What the keys on a message do: branches, copying, forking, and the list of past conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from textual.widgets import OptionList

from mm35local.tui.options import ChatOptions
from mm35local.tui.records import Message, Role, as_path
from mm35local.tui.screens.chat_turns import code_blocks
from mm35local.tui.screens.conversations import ConversationsScreen
from mm35local.tui.screens.rename import RenameScreen
from mm35local.tui.widgets.turn import Turn
from tests.fakes.chat_server import ChatServer, Say
from tests.tui.chat_pilot import Chat, open_chat
from tests.tui.conftest import until


def _contents(chat: Chat) -> list[str]:
    return [message.content for message in chat.app.session.messages]


async def _select(chat: Chat, number: int) -> None:
    """The keyboard on the message of that number, counted from the end."""
    await chat.pilot.press("shift+tab", *["up"] * (number - 1))
    await until(lambda: isinstance(chat.app.focused, Turn))


async def test_edit_and_resend_opens_a_branch_that_can_be_walked(server: ChatServer, tmp_path: Path) -> None:
    server.script.scripts = [(Say("a1"),), (Say("a2"),), (Say("a3"),), (Say("a4"),)]
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")
    async with open_chat(options) as chat:
        await chat.ask("q1")
        await chat.answered()
        await chat.ask("q2")
        await chat.answered(2)
        await _select(chat, 4)
        await chat.pilot.press("e")
        assert chat.prompt.text == "q1"
        assert "editing" in chat.text("Pending")
        await chat.pilot.press("escape")
        assert chat.prompt.text == ""
        await _select(chat, 4)
        await chat.pilot.press("e")
        await chat.ask("q1 better")
        await until(lambda: _contents(chat) == ["q1 better", "a3"])
        assert server.script.requests[2]["messages"] == [{"role": "user", "content": "q1 better"}]
        await _select(chat, 2)
        await chat.pilot.press("left")
        await until(lambda: _contents(chat) == ["q1", "a1", "q2", "a2"])
        assert "‹ 1/2 ›" in chat.text("Question .versions")
        await chat.pilot.press("left")
        assert len(_contents(chat)) == 4
    async with open_chat(replace(options, continue_last=True)) as chat:
        assert _contents(chat) == ["q1", "a1", "q2", "a2"]
        await _select(chat, 4)
        await chat.pilot.press("right")
        await until(lambda: _contents(chat) == ["q1 better", "a3"])


async def test_another_answer_and_a_fork(server: ChatServer, tmp_path: Path) -> None:
    server.script.scripts = [(Say("a1"),), (Say("a2"),), (Say("a3"),)]
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")) as chat:
        await chat.ask("q")
        await chat.answered()
        await _select(chat, 1)
        await chat.pilot.press("r")
        await until(lambda: _contents(chat) == ["q", "a2"])
        await until(lambda: "‹ 2/2 ›" in chat.text("Answer .versions"))
        assert server.script.requests[1] == server.script.requests[0]
        await _select(chat, 1)
        await chat.pilot.press("left")
        await until(lambda: _contents(chat) == ["q", "a1"])
        first = chat.app.session.conversation_id
        await chat.pilot.press("f")
        await until(lambda: chat.app.session.conversation_id != first)
        assert _contents(chat) == ["q", "a1"]
        assert chat.app.session.title == "q (fork)"
        await chat.ask("more")
        await until(lambda: _contents(chat) == ["q", "a1", "more", "a3"])


async def test_messages_and_code_are_copied_as_markdown(server: ChatServer) -> None:
    markdown = "Two:\n\n```python\nprint('[/x]')\n```\n\n~~~\nplain\n~~~\nend"
    server.script.scripts = [(Say(markdown),)]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("q")
        await chat.answered()
        await _select(chat, 1)
        await chat.pilot.press("c")
        assert chat.app.clipboard == markdown
        await chat.pilot.press("b")
        assert chat.app.clipboard == "plain\n"
        await chat.pilot.press("b")
        assert chat.app.clipboard == "print('[/x]')\n"
        await chat.pilot.press("up", "c", "b")
        assert chat.app.clipboard == "q"
        await chat.pilot.press("down", "down")
        assert chat.app.focused is chat.prompt


def test_code_blocks_end_at_their_own_fence() -> None:
    assert code_blocks("````\n```\na\n```\n````\n\n```open\nb") == ["```\na\n```\n", "b"]


async def test_the_sidebar_searches_renames_pins_deletes_and_undoes(server: ChatServer, tmp_path: Path) -> None:
    server.script.scripts = [(Say("About whiskers."),), (Say("Hello."),)]
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")) as chat:
        for question in ("[/cats]", "cows"):
            await chat.pilot.press("ctrl+n")
            await chat.ask(question)
            await chat.answered()
        await chat.pilot.press("ctrl+o")
        await until(lambda: isinstance(chat.app.screen, ConversationsScreen))
        listed = chat.app.screen.query_one(OptionList)

        def rows() -> list[str]:
            return [str(option.prompt) for option in listed.options]

        await until(lambda: len(rows()) == 3)
        assert rows()[0] == "Today"
        assert "cows" in rows()[1]
        await chat.pilot.press("down", "ctrl+b")
        await until(lambda: rows()[0] == "Pinned")
        assert "★ [/cats]" in rows()[1]
        await chat.pilot.press("ctrl+r")
        await until(lambda: isinstance(chat.app.screen, RenameScreen))
        await chat.pilot.press(*" and dogs", "enter")
        await until(lambda: "★ [/cats] and dogs" in rows()[1])
        await chat.pilot.press("ctrl+d")
        await until(lambda: len(rows()) == 2)
        await chat.pilot.press("ctrl+z")
        await until(lambda: len(rows()) == 4)
        await chat.pilot.press(*"whisk")
        await until(lambda: len(rows()) == 2)
        assert "About whiskers." in rows()[1]
        await chat.pilot.press("enter")
        await until(lambda: chat.answers == ["About whiskers."])
        assert chat.app.session.title == "[/cats] and dogs"


async def test_a_find_is_opened_on_its_own_branch(server: ChatServer, tmp_path: Path) -> None:
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "history.sqlite3")) as chat:
        path = as_path(Message((Role.USER, Role.ASSISTANT)[i % 2], f"said ({i}th)") for i in range(60))
        branch = [replace(path[-1], id=61, content="another end")]
        await chat.app.session.add_conversation("long", [*path, *branch])
        for words, found in (("59th", 59), ("(7th)", 7), ("another", 59)):
            await chat.ask(f"/past {words}")
            await until(lambda: isinstance(chat.app.screen, ConversationsScreen))
            listed = chat.app.screen.query_one(OptionList)
            await until(lambda shown=listed: shown.option_count == 2)  # type: ignore[misc]
            await chat.pilot.press("enter")
            await until(lambda: isinstance(chat.app.focused, Turn))
            assert isinstance(chat.app.focused, Turn)
            assert chat.app.focused.message_id == chat.app.session.messages[found].id
            assert words in chat.app.session.messages[found].content
            chat.prompt.focus()
