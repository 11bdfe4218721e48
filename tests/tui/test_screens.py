"""Every screen as a person sees it, at 80x24 and 160x45, dark and light: the text of each is kept in snapshots/.

MM35_UPDATE_SNAPSHOTS=1 writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import html
import os
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.command import CommandPalette

from mm35local.tui.options import ChatOptions
from mm35local.tui.records import Message, Role, as_path
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.screens.conversations import ConversationsScreen
from mm35local.tui.screens.help import HelpScreen
from mm35local.tui.screens.leave import LeaveScreen
from mm35local.tui.screens.rename import RenameScreen
from mm35local.tui.screens.settings import SettingsScreen
from tests.fakes.chat_server import Call, ChatServer, Say, Think
from tests.tui.chat_pilot import Chat, open_chat
from tests.tui.conftest import until

SNAPSHOTS = Path(__file__).parent / "snapshots"
_MOST_FRAMES = 40
SIZES = [(80, 24), (160, 45)]
ANSWER = """## Bytes

A **bold** word, `code` and [markup](https://example.org): [/b] [[x]].

| Quant | GiB |
|---|---:|
| Q4_K_M | 69.7 |

```python
def greet(name: str) -> str:
    return f"Hello, {name}!"
```

1. first
2. second
"""


def screen_text(svg: str) -> str:
    """The text of a screenshot, line by line; blanks at the right are dropped."""
    rows: defaultdict[float, list[tuple[float, str]]] = defaultdict(list)
    for x, y, text in re.findall(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        rows[float(y)].append((float(x), html.unescape(text).replace("\xa0", " ")))
    lines = []
    for y in sorted(rows):
        line = ""
        for x, text in sorted(rows[y]):
            line = line.ljust(round(x / 12.2)) + text
        lines.append(line.rstrip())
    return re.sub(r"\d\d:\d\d", "HH:MM", "\n".join(lines)) + "\n"


def _shown(chat: Chat) -> str:
    text = re.sub(r"\d+\.\d (tok/s|s)\b", r"N \1", screen_text(chat.app.export_screenshot()))
    return text.replace("mm35-light", "mm35-dark ")


async def _compare(chat: Chat, name: str, size: tuple[int, int], theme: str) -> None:
    """A busy machine may be some frames late."""
    path = SNAPSHOTS / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("MM35_UPDATE_SNAPSHOTS") and theme == "mm35-dark":
        await chat.pilot.pause(0.5)
        path.write_text(_shown(chat))
    expected = path.read_text()
    for _ in range(_MOST_FRAMES):
        text = _shown(chat)
        if text == expected:
            break
        await chat.pilot.pause(0.1)
    assert text == expected
    assert all(len(line) <= size[0] for line in text.splitlines())


async def _open_all(chat: Chat, see: Callable[[str], Awaitable[None]]) -> None:
    """Every screen that opens over the chat, one after the other."""
    await chat.pilot.press("f1")
    await until(lambda: isinstance(chat.app.screen, HelpScreen))
    await chat.pilot.pause(0.2)
    await see("help")
    await chat.pilot.press("escape", "f3")
    await until(lambda: isinstance(chat.app.screen, SettingsScreen))
    await chat.pilot.pause(0.2)
    await see("settings")
    await chat.pilot.press("escape", "ctrl+p")
    await until(lambda: isinstance(chat.app.screen, CommandPalette))
    await chat.pilot.press(*"export")
    await chat.pilot.pause(0.5)
    await see("palette")
    await chat.pilot.press("escape", "escape")
    await until(lambda: isinstance(chat.app.screen, ChatScreen))
    await chat.app.push_screen(LeaveScreen(2))
    await chat.pilot.pause(0.2)
    await see("leave")
    await chat.pilot.press("escape")
    old = [Message(Role.USER, "About [cats]"), Message(Role.ASSISTANT, "They purr.", model="m")]
    await chat.app.session.add_conversation("About [cats]", as_path(old))
    await chat.pilot.press("ctrl+o")
    await until(lambda: isinstance(chat.app.screen, ConversationsScreen))
    await chat.pilot.press(*"purr")
    await chat.pilot.pause(0.5)
    await see("conversations")
    await chat.pilot.press("ctrl+r")
    await until(lambda: isinstance(chat.app.screen, RenameScreen))
    await chat.pilot.pause(0.2)
    await see("rename")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["mm35-dark", "mm35-light"])
async def test_every_screen(server: ChatServer, size: tuple[int, int], theme: str, tmp_path: Path) -> None:
    server.script.scripts = [[Say(ANSWER)], [Think("A tool, then."), Call('{"path": "a.md"}', "read_file")]]
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3", theme=theme)
    async with open_chat(options, size) as chat:

        async def see(name: str) -> None:
            await _compare(chat, name, size, theme)

        assert chat.app.current_theme.name == theme
        await see("welcome")
        await chat.ask("How many bytes?")
        await chat.answered()
        await chat.pilot.pause(0.2)
        await see("answer")
        await chat.ask("And [/this]?")
        await chat.answered(2)
        await chat.pilot.press("shift+tab")
        await chat.pilot.pause(0.2)
        await see("selected")
        await chat.pilot.press("escape", "/", "e")
        await until(lambda: chat.prompt.completions.display)
        await chat.pilot.pause(0.1)
        await see("commands")
        await chat.pilot.press("backspace", "backspace")
        await _open_all(chat, see)


async def test_without_colours_it_still_reads(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with open_chat(ChatOptions(server.url)) as chat:
        assert chat.app.no_color
        await chat.ask("?")
        await chat.answered()
        colours = re.findall(r"-r\d+ \{ fill: #([0-9a-f]{6})", chat.app.export_screenshot())
        assert colours
        for colour in colours:
            channels = bytes.fromhex(colour)
            assert max(channels) - min(channels) < 8
