"""`/` commands as a hasty person writes them: what they do, and what they tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from textual.widgets import TextArea

from mm35local.tui.options import ChatOptions
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.screens.settings import SettingsScreen
from mm35local.tui.widgets.completions import Word
from tests.fakes.chat_server import ChatServer, Pause, Say
from tests.tui.chat_pilot import Chat, open_chat
from tests.tui.conftest import until


def _told(chat: Chat) -> list[tuple[str, str, str]]:
    return [(note.severity, note.title, note.message) for note in chat.app._notifications]


async def test_a_list_that_comes_late_takes_no_key(server: ChatServer, tmp_path: Path) -> None:
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "h.sqlite3")) as chat:
        await chat.ask("hi")
        await chat.answered()
        for end in ("enter", "tab"):
            out = tmp_path / f"{end}.json"
            chat.prompt.write(f"/export {out}")
            await chat.pilot.pause()
            chat.prompt.completions.offer(Word("command", "ex", 0), [("export", "")])
            await chat.pilot.press(end)
            assert chat.prompt.text == ("" if end == "enter" else f"/export {out}")
            assert not chat.prompt.completions.display
        await until((tmp_path / "enter.json").exists)


async def test_an_export_tells_where_it_is(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "h.sqlite3")) as chat:
        await chat.ask("/export a.json")
        await chat.ask("hi")
        await chat.answered()
        await chat.ask("/export [a].json")
        await until((tmp_path / "[a].json").exists)
        await chat.ask("/export [a].json")
        await chat.ask("/export --all tree.md")
        await chat.ask("/export --all")
        await until(lambda: len(_told(chat)) == 5)
        assert _told(chat) == [
            ("error", "there is nothing to export yet", "ask something first"),
            ("information", "Exported to", str(tmp_path / "[a].json")),
            ("error", f"{tmp_path / '[a].json'}: File exists", "give a name that is free, in a folder that exists"),
            ("error", f"{tmp_path / 'tree.md'}: Markdown holds one branch", "/export --all NAME.json"),
            ("error", "a file needs a name", "/export --all NAME.json"),
        ]


async def test_all_branches_go_out_and_come_in(server: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "tree.json"
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "h.sqlite3")) as chat:
        await chat.ask("first")
        await chat.answered()
        await chat.ask("/again")
        await until(lambda: len(server.script.requests) == 2)
        await chat.answered()
        session = chat.app.session
        question, second = session.messages
        assert await session.walk(second.id, -1)
        first = session.messages[-1]
        await chat.ask(f"/export --all {out}")
        await until(out.exists)
        document = json.loads(out.read_text())
        assert (document["parents"], document["shown"]) == ([None, 0, 0], 1)
        await chat.ask(f"/import {out}")
        await until(lambda: any("taken over" in title for _, title, _ in _told(chat)))
        copy = next(c for c in await session.history.conversations() if c.id != session.conversation_id)
        await session.resume(copy)
        assert [m.content for m in session.messages] == [question.content, first.content]
        assert session.messages[-1].outcome == first.outcome
        assert session.place(session.messages[-1].id) == (1, 2)


async def test_what_makes_the_prefix_be_read_again_is_told(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("/effort high")
        await chat.ask("hi")
        await chat.answered()
        num_tokens = chat.app.session.num_context_tokens
        assert num_tokens
        for line in ("/effort none", "/effort none", "/system Be brief.", "/system Be brief.", "/system"):
            await chat.ask(line)
        await chat.pilot.press("f3")
        await until(lambda: isinstance(chat.app.screen, SettingsScreen))
        chat.app.screen.query_one("#system", TextArea).text = "Be long."
        await chat.pilot.press("ctrl+s")
        await until(lambda: isinstance(chat.app.screen, ChatScreen))
        await chat.pilot.press("ctrl+n")
        await chat.ask("/effort high")
        await until(lambda: len(_told(chat)) == 8)
        again, later = (
            f"{num_tokens:,} tokens of this conversation will be read again.",
            "It holds from the next question on.",
        )
        assert _told(chat) == [
            ("information", "effort is high", later),
            ("warning", "effort is none", again),
            ("information", "effort is none", later),
            ("warning", "the system prompt is changed", again),
            ("information", "the system prompt is changed", later),
            ("warning", "there is no system prompt", again),
            ("warning", "settings are kept", again),
            ("information", "effort is high", later),
        ]


async def test_images_are_for_models_that_see(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (6, 5), "#ff0000").save(path)
    server.script.health = {"model": {"id": "blind", "vision": False}}
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask(f"/attach {path}")
        await until(lambda: _told(chat))
        assert _told(chat) == [("error", "blind sees no images", "serve the model with its vision part: --mmproj FILE")]
        assert not chat.screen.pending.attachments


async def test_an_answer_can_be_copied_while_it_comes(server: ChatServer) -> None:
    server.script.scripts = [[Say("So [far]"), Pause(30)]]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.pilot.press("ctrl+y")
        assert _told(chat)[-1][2] == "No answer to copy yet."
        await chat.ask("?")
        await until(lambda: "answering" in chat.status)
        await chat.pilot.press("ctrl+y")
        assert chat.app.clipboard == "So [far]"
