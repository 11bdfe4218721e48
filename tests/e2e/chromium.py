"""A headless Chromium, driven over its DevTools websocket: what a person would do and see in a browser."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_SECONDS = 30.0
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}


class Page:
    """One tab. `urls` are those that it asked for; `received` is what came over its own websockets."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.urls: list[str] = []
        self.received = bytearray()
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Read what Chromium says, until cancelled."""
        async for message in self._socket:
            said = message.json()
            match said.get("method"):
                case None:
                    self._answers.pop(said["id"]).set_result(said)
                case "Network.requestWillBeSent":
                    self.urls.append(said["params"]["request"]["url"])
                case "Network.webSocketCreated":
                    self.urls.append(said["params"]["url"])
                case "Network.webSocketFrameReceived" if said["params"]["response"]["opcode"] == 2:
                    self.received += base64.b64decode(said["params"]["response"]["payloadData"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await self._answers[number]
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return result["result"].get("value")

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def press_enter(self) -> None:
        for kind, more in (("keyDown", {"text": "\r"}), ("keyUp", {})):
            await self.call("Input.dispatchKeyEvent", type=kind, **_ENTER, **more)

    async def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"]))


@contextlib.asynccontextmanager
async def open_page(program: str, url: str, size: tuple[int, int] = (1200, 800)) -> AsyncIterator[Page]:
    """In a Chromium with a fresh profile; both are gone afterwards."""
    async with (
        _chromium(program, size) as port_file,
        aiohttp.ClientSession() as session,
        session.ws_connect(await _devtools(session, port_file), max_msg_size=0) as socket,
    ):
        page = Page(socket)
        listening = asyncio.create_task(page.listen())
        try:
            await page.call("Network.enable")
            await page.call("Page.navigate", url=url)
            yield page
        finally:
            listening.cancel()


@contextlib.asynccontextmanager
async def _chromium(program: str, size: tuple[int, int]) -> AsyncIterator[Path]:
    """The file in which it tells its port."""
    quiet = asyncio.subprocess.DEVNULL
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = (f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "--remote-debugging-port=0")
        process = await asyncio.create_subprocess_exec(
            program, *_FLAGS, *options, "about:blank", stdout=quiet, stderr=quiet
        )
        try:
            yield Path(profile) / "DevToolsActivePort"
        finally:
            process.terminate()
            await process.wait()


async def _devtools(session: aiohttp.ClientSession, port_file: Path) -> str:
    """The websocket of its first tab."""
    async with asyncio.timeout(START_SECONDS):
        while not port_file.exists() or not port_file.read_text():
            await asyncio.sleep(0.05)
        url = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"
        while True:
            async with session.get(url) as reply:
                for target in await reply.json():
                    if target["type"] == "page":
                        return str(target["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
