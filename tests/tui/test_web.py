"""The chat as a web page: who may open it, and that a tab ends with the page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
from yarl import URL

from tests.fakes.chat_server import ChatScript, ChatServer, Say
from tests.tui.conftest import until


@dataclass(frozen=True, slots=True)
class Served:
    process: subprocess.Popen[str]
    url: URL
    """With the key in it."""

    @property
    def tabs(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(ChatScript(scripts=[[Say("Red, green and blue.")]])) as running:
        yield running


@pytest.fixture
def page(server: ChatServer, tmp_path: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "mm35local", "chat", "--web", "--url", server.url]
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout
        yield Served(process, URL(process.stdout.readline().removeprefix("the chat:").strip()))
        process.kill()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def test_only_who_has_the_key_gets_in(page: Served, browser: aiohttp.ClientSession) -> None:
    top = page.url.with_query(None)
    for address in (top, top / "ws", top / "static/js/textual.js", top.with_query(key="x")):
        async with browser.get(address) as reply:
            assert reply.status == 403
    async with browser.get(page.url) as reply:
        assert (reply.status, reply.url) == (200, top)
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        text = await reply.text()
    assert "https://" not in text
    for path in ("static/js/textual.js", "static/css/xterm.css", "static/fonts/RobotoMono-VariableFont_wght.ttf"):
        assert f"/{path}" in text
        async with browser.get(top / path) as reply:
            assert reply.status == 200
    # The key is in the browser now; other pages there still may not use it.
    for headers in ({"Origin": "https://example.org"}, {"Host": f"example.org:{top.port}"}, {"Origin": "null"}):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await browser.ws_connect(top / "ws", headers=headers)
        async with browser.get(top, headers=headers) as reply:
            assert reply.status == 403
    assert page.tabs == []


async def _shown(socket: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """All that was drawn until `text`."""
    seen = ""
    while text not in seen:
        seen += (await socket.receive_bytes(timeout=20)).decode("utf-8", "replace")
    return seen


def _is_alive(process: psutil.Process) -> bool:
    """It may go while it is looked at."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
async def test_a_tab_answers_and_ends_with_the_page(
    page: Served, browser: aiohttp.ClientSession, ending: signal.Signals
) -> None:
    await (await browser.get(page.url)).read()
    async with browser.ws_connect(page.url.with_query(None) / "ws") as socket:
        await socket.send_json(["resize", {"width": 80, "height": 24}])
        await _shown(socket, "ready")
        await socket.send_json(["stdin", "Name three colours.\r"])
        await _shown(socket, "blue.")
        tabs = page.tabs
        assert tabs
        page.process.send_signal(ending)
        await until(lambda: not any(map(_is_alive, tabs)))
        async for _ in socket:
            pass
        await until(lambda: page.process.poll() is not None)
        assert page.process.returncode == (0 if ending is signal.SIGINT else -ending)


async def test_closing_the_tab_ends_its_chat(page: Served, browser: aiohttp.ClientSession) -> None:
    await (await browser.get(page.url)).read()
    async with browser.ws_connect(page.url.with_query(None) / "ws") as socket:
        await _shown(socket, "ready")
    await until(lambda: not page.tabs)
    assert page.process.poll() is None


async def test_a_tab_that_does_not_begin_says_why(page: Served, browser: aiohttp.ClientSession, tmp_path: Path) -> None:
    await (await browser.get(page.url)).read()
    settings = tmp_path / "mm35local" / "settings.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text("port = \x1b[2J")
    async with browser.ws_connect(page.url.with_query(None) / "ws") as socket:
        told = await _shown(socket, "Reload the page")
        assert f"error: {settings}" in told
        assert "hint: correct the file" in told
        assert "\x1b[2J" not in told
