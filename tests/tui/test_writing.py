"""The prompt: commands, files, pasted text, what goes along, and what is chosen in the settings."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from textual.events import Paste
from textual.widgets import Input, TextArea

from mm35local.errors import UsageError
from mm35local.settings import ChatSettings, load_settings
from mm35local.tui.attachments import read_attachment
from mm35local.tui.commands import COMMANDS, parse
from mm35local.tui.files import best_matches, list_files
from mm35local.tui.options import ChatOptions
from mm35local.tui.preferences import keep
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.screens.settings import SettingsScreen
from mm35local.tui.widgets.completions import Word, word_before
from mm35local.tui.widgets.image import ImagePreview
from tests.fakes.chat_server import Call, ChatServer, Pause, Read, Say
from tests.tui.chat_pilot import Chat, open_chat
from tests.tui.conftest import until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a source file, a picture, and what must not be offered."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "[main].py").write_text("print('hi')\n")
    (tmp_path / ".secret").write_text("x")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "main.js").write_text("x")
    Image.new("RGB", (6, 5), "#ff0000").save(tmp_path / "red.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _kinds(chat: Chat) -> list[str]:
    return [item.name for item in chat.screen.pending.attachments]


async def test_a_file_and_an_image_are_picked_and_sent(server: ChatServer, folder: Path) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.pilot.press(*"see @mai")
        await until(lambda: chat.prompt.completions.choice == "src/[main].py")
        await chat.pilot.press("enter")
        await until(lambda: _kinds(chat) == ["[main].py"])
        assert chat.prompt.text == "see "
        await chat.pilot.press(*"@red")
        await until(lambda: chat.prompt.completions.choice == "red.png")
        await chat.pilot.press("tab")
        await until(lambda: _kinds(chat) == ["[main].py", "red.png"])
        await chat.pilot.press("enter")
        await chat.answered()
        assert chat.app.screen.query(ImagePreview)
        [message] = server.script.requests[0]["messages"]
        image, text = message["content"]
        assert text["text"] == "[main].py\n```python\nprint('hi')\n```\n\nsee "
        url = image["image_url"]["url"]
        assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == (folder / "red.png").read_bytes()
        assert not _kinds(chat)


async def test_long_pastes_become_attachments_short_ones_stay(server: ChatServer) -> None:
    async with open_chat(ChatOptions(server.url)) as chat:
        chat.prompt.post_message(Paste("short [/x]"))
        await until(lambda: chat.prompt.text == "short [/x]")
        chat.prompt.post_message(Paste("long\n" * 1000))
        await until(lambda: _kinds(chat) == ["pasted-1.txt"])
        await chat.pilot.press("enter")
        await chat.answered()
        assert server.script.requests[0]["messages"][0]["content"].endswith("long\n```\n\nshort [/x]")
        chat.prompt.post_message(Paste("long\n" * 1000))
        await until(lambda: _kinds(chat) == ["pasted-2.txt"])
        await chat.pilot.press("backspace")
        await until(lambda: not _kinds(chat))


async def test_commands_are_completed_and_run(server: ChatServer, tmp_path: Path) -> None:
    out = tmp_path / "out.md"
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "h.sqlite3")) as chat:
        await chat.ask("hi")
        await chat.answered()
        await chat.pilot.press(*"/ef")
        await until(lambda: chat.prompt.completions.choice == "effort")
        await chat.pilot.press("tab")
        assert chat.prompt.text == "/effort "
        await chat.pilot.press(*"high", "enter")
        await until(lambda: chat.app.session.options.effort == "high")
        assert any("read again" in note.message for note in chat.app._notifications)
        await chat.ask(f"/export {out}")
        await until(out.exists)
        await chat.ask(f"/export {out}")
        await until(lambda: any(note.severity == "error" for note in chat.app._notifications))
        await chat.ask("/rename [new] name")
        await until(lambda: chat.app.session.title == "[new] name")
        await chat.ask("/nonsense")
        await chat.ask("/again")
        await until(lambda: len(server.script.requests) == 2)
        assert server.script.requests[1]["reasoning_effort"] == "high"
        await chat.answered()
        await chat.ask("/home/me is a path")
        await chat.answered(2)


def test_every_command_can_be_run() -> None:
    assert all(callable(getattr(ChatScreen, f"command_{command.name}")) for command in COMMANDS)
    assert parse("/export a b\nc") == ("export", "a b\nc")
    assert parse(" /new ") == ("new", "")
    assert parse("/usr/bin") is parse("a /new") is parse("//") is None


def test_which_word_is_completed() -> None:
    assert word_before("/ne", True) == Word("command", "ne", 0)
    assert word_before("/ne", False) is word_before("me@host", True) is word_before("/new x", True) is None
    assert word_before("see @a/b", False) == Word("file", "a/b", 4)


def test_files_are_listed_near_ones_first_and_matched(folder: Path) -> None:
    assert list_files(folder) == ["red.png", "src/[main].py"]
    assert best_matches("mpy", list_files(folder)) == ["src/[main].py"]
    assert best_matches("zz", list_files(folder)) == []
    assert list_files(folder / "nowhere") == []


def test_what_cannot_be_attached_says_so(tmp_path: Path) -> None:
    binary = tmp_path / "a.bin"
    binary.write_bytes(b"\xff\x00\xfe")
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (1 << 21))
    for path, words in ((binary, "neither text nor"), (large, "2,097,152 bytes"), (tmp_path / "no", "no such file")):
        with pytest.raises(UsageError, match=words):
            read_attachment(path)


async def test_a_broken_image_is_told(server: ChatServer, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (50, 50)).save(data, "PNG")
    path = tmp_path / "half.png"
    path.write_bytes(data.getvalue()[:60])
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask(f"/attach {path}")
        await until(lambda: _kinds(chat))
        await chat.ask("what is it?")
        await chat.answered()
        assert chat.app.screen.query(ImagePreview)


async def test_prefill_and_tool_calls_are_shown(server: ChatServer, tmp_path: Path) -> None:
    calls = [Call("", "look_[up]"), Call('{"x": '), Call("1}"), Call("{", "other", 1)]
    server.script.scripts = [(Read(5000, 20_000, 1000), Pause(1.0), *calls), (Say("ok"),)]
    async with open_chat(ChatOptions(server.url, history_path=tmp_path / "h.sqlite3"), (160, 45)) as chat:
        await chat.ask("?")
        await until(lambda: "reading 5,000 / 20.0k tokens" in chat.status)
        assert "left" in chat.status
        assert "1,000 from the cache" in chat.status
        await chat.answered()
        shown = chat.text("ToolCalls")
        assert '⚙ look_[up]\n  {\n    "x": 1\n  }' in shown
        assert "⚙ other\n  {" in shown
        await chat.ask("and?")
        await chat.answered(2)
        assert "hosted: $" in chat.status
        calls_kept = chat.app.session.messages[1].tool_calls
        assert [(call.name, call.arguments) for call in calls_kept] == [("look_[up]", '{"x": 1}'), ("other", "{")]


async def test_settings_are_chosen_kept_and_in_force(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("# mine\nport = 9999\n")
    options = ChatOptions(server.url, settings_path=path)
    async with open_chat(options) as chat:
        await chat.pilot.press("f3")
        await until(lambda: isinstance(chat.app.screen, SettingsScreen))
        screen = chat.app.screen
        screen.query_one("#temperature", Input).value = "nine"
        await chat.pilot.press("ctrl+s")
        await until(lambda: "temperature" in chat.text(".problem"))
        screen.query_one("#temperature", Input).value = "0.3"
        screen.query_one("#system", TextArea).text = "Be [brief]."
        screen.query_one("#preset-name", Input).value = "brief"
        await chat.pilot.press("ctrl+s")
        await until(lambda: isinstance(chat.app.screen, ChatScreen))
        await chat.ask("?")
        await chat.answered()
        assert server.script.requests[0]["temperature"] == 0.3
        assert server.script.requests[0]["messages"][0] == {"role": "system", "content": "Be [brief]."}
    assert path.read_text().startswith("# mine\n")
    kept = load_settings(path)
    assert kept.port == 9999
    assert kept.chat == ChatSettings(temperature=0.3, system="Be [brief].", presets={"brief": "Be [brief]."})


def test_a_settings_file_that_is_no_toml_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("port = [")
    with pytest.raises(UsageError):
        keep(path, ChatSettings())
    assert path.read_text() == "port = ["
