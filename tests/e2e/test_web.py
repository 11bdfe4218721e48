"""`mm35 chat --web` in a real browser: a question is typed into the page and SmolLM2 answers it.

`make web` runs it, where Chromium is installed; MM35_SCREENSHOT=FILE keeps what the page looked like.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from tests.e2e.chromium import Page, open_page
from tests.e2e.serving import free_port

pytestmark = [pytest.mark.web, pytest.mark.timeout(240)]
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07)")


@contextmanager
def chat_page(model: Path, folder: Path) -> Iterator[str]:
    """The address that `mm35 chat --web` prints; its conversations are kept in `folder`."""
    env = {"MM35_PORT": str(free_port()), "XDG_DATA_HOME": str(folder), "XDG_STATE_HOME": str(folder)}
    command = [sys.executable, "-m", "mm35local", "chat", "--web", "--model", str(model), "--max-tokens", "48"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().removeprefix("the chat:").strip()
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert psutil.wait_procs(children, 10)[1] == [], "something was left running"


async def seen(page: Page, text: str, seconds: float = 60.0) -> None:
    """Until `text` was drawn."""
    async with asyncio.timeout(seconds):
        while text not in _ESCAPES.sub("", page.received.decode("utf-8", "replace")):
            await asyncio.sleep(0.1)


def answers(folder: Path) -> list[str]:
    (path,) = folder.rglob("*.sqlite3")
    with closing(sqlite3.connect(path)) as db:
        return [
            str(row[0])
            for row in db.execute("SELECT content FROM messages WHERE state = 'complete' AND role = 'assistant'")
        ]


async def test_a_question_is_answered_in_a_browser(smollm2_path: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "there is no Chromium here"
    with chat_page(smollm2_path, tmp_path) as url:
        async with open_page(chromium, url) as page:
            await seen(page, "ready")
            await page.type("Name three colours.")
            await page.press_enter()
            async with asyncio.timeout(60):
                while not answers(tmp_path):
                    await asyncio.sleep(0.2)
            await seen(page, answers(tmp_path)[0].split()[0])
            await asyncio.sleep(1.0)
            shot = tmp_path / "shot.png"
            await page.screenshot(shot)
            assert await page.evaluate("location.search") == ""
            hosts = {urlsplit(address).hostname for address in page.urls if not address.startswith("data:")}
    if kept := os.environ.get("MM35_SCREENSHOT"):
        Path(kept).write_bytes(shot.read_bytes())
    assert hosts == {"127.0.0.1"}
    assert len(Image.open(shot).convert("RGB").getcolors(1 << 20) or []) > 50
