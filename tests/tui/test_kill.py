"""The chat killed in mid-answer, as a process on a terminal, and its server: what is lost, and whether one can go on.

MM35_KILLS=20 does it more often than the default run.
"""

from __future__ import annotations

import asyncio
import os
import pty
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import overload

import pytest

from mm35local.tui.client import ServerClient
from mm35local.tui.history import History
from mm35local.tui.options import ChatOptions
from mm35local.tui.records import MessageState
from mm35local.tui.session import ChatSession
from tests.fakes.chat_server import DEMO, ChatScript, ChatServer, Pause, Say, Step
from tests.tui.chat_pilot import open_chat
from tests.tui.conftest import until
from tests.tui.test_session import READY

NUM_KILLS = int(os.environ.get("MM35_KILLS", "2"))
LOST_SECONDS = 1.0


class Clock(Sequence[Step]):
    """An answer that tells the time at which each of its words was sent, for ever."""

    @overload
    def __getitem__(self, index: int) -> Step: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...

    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        return Pause(0) if isinstance(index, int) else [Pause(0)]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Step]:
        while True:
            yield Say(f"{time.monotonic():.3f} ")
            yield Pause(0.02)


def _chat(url: str, path: Path, is_drained: bool = True) -> tuple[subprocess.Popen[bytes], int]:
    program = (
        "import sys, pathlib; from mm35local.tui.app import run_chat; from mm35local.tui.options import ChatOptions;"
        " run_chat(ChatOptions(sys.argv[1], history_path=pathlib.Path(sys.argv[2]), continue_last=True))"
    )
    terminal, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, url, str(path)], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    if is_drained:
        threading.Thread(target=_drain, args=(terminal, threading.Event()), daemon=True).start()
    return process, terminal


def _drain(terminal: int, stop: threading.Event) -> None:
    with suppress(OSError):
        while not stop.is_set():
            if select.select([terminal], [], [], 0.2)[0] and not os.read(terminal, 1 << 16):
                return


@pytest.mark.timeout(120 + 10 * NUM_KILLS)
async def test_a_kill_in_mid_answer_loses_less_than_a_second(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    chance = random.Random(8)
    for number in range(NUM_KILLS):
        with ChatServer(ChatScript(scripts=[Clock()])) as server:
            process, terminal = _chat(server.url, path)
            await _type_until_asked(server, terminal)
            await asyncio.sleep(1.2 + chance.random())
            process.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
            process.wait()
            os.close(terminal)
        with ChatServer(ChatScript(scripts=[[Say("Going on.")]])) as server:
            client = ServerClient(server.url)
            session = ChatSession(client, ChatOptions(server.url, history_path=path, continue_last=True))
            await session.open()
            assert session.take_history_error() is None
            answer = session.messages[-1]
            assert len(session.messages) == 2 + 4 * number
            assert answer.outcome.state is MessageState.STREAMING
            assert killed_at - float(answer.content.split()[-1]) < LOST_SECONDS
            reply = await session.ask("go on", "m")
            await session.answer(reply, READY)
            assert session.messages[-1].content == "Going on."
            assert server.script.requests[0]["messages"][-2] == {"role": "assistant", "content": answer.content}
            await session.close()
            await client.aclose()


async def test_a_terminal_that_goes_takes_the_chat_along_and_what_came_is_kept(tmp_path: Path) -> None:
    """The terminal here controls no process: nobody sends SIGHUP."""
    path = tmp_path / "history.sqlite3"
    with ChatServer(ChatScript(scripts=[Clock()])) as server:
        process, terminal = _chat(server.url, path, is_drained=False)
        drain = threading.Thread(target=_drain, args=(terminal, stop := threading.Event()), daemon=True)
        drain.start()
        await _type_until_asked(server, terminal)
        await asyncio.sleep(0.5)
        stop.set()
        drain.join()
        os.close(terminal)
        await until(lambda: process.poll() is not None)
    history = History(path)
    await history.open()
    (conversation,) = await history.conversations()
    _, answer = await history.messages(conversation.id)
    assert answer.outcome.state is MessageState.STOPPED
    assert answer.content
    await history.close()


async def test_a_chat_that_was_stopped_goes_on_and_can_be_left(tmp_path: Path) -> None:
    with ChatServer(ChatScript(scripts=[[Say("Yes.")]])) as server:
        process, terminal = _chat(server.url, tmp_path / "history.sqlite3")
        await _type_until_asked(server, terminal)
        for _ in range(2):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.5)
        os.write(terminal, b"\x11")
        await until(lambda: process.poll() is not None)
        os.close(terminal)


async def _type_until_asked(server: ChatServer, terminal: int) -> None:
    """The question is typed once the chat reads keys; what comes before is lost."""
    deadline = time.monotonic() + 30
    while not server.script.requests:
        assert time.monotonic() < deadline
        os.write(terminal, b"go\r")
        with suppress(AssertionError):
            await until(lambda: server.script.requests, 2.0)


async def test_a_killed_server_leaves_what_came_and_one_goes_on_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    port = _free_port()
    process = _serve(port)
    async with open_chat(ChatOptions(f"http://127.0.0.1:{port}", history_path=path)) as chat:
        await chat.ask("A tour, please.")
        await until(lambda: "answering" in chat.status, 20)
        process.kill()
        process.wait()
        await chat.answered()
        asked, broken = chat.app.session.messages
        assert broken.outcome.state is MessageState.FAILED
        assert DEMO.startswith(broken.content)
        assert broken.content
        await until(lambda: chat.screen.banner.display)
        with ChatServer(ChatScript(scripts=[[Say("Going on.")]]), port) as server:
            await chat.ask("go on")
            await chat.answered(2)
            assert chat.app.session.messages[-1].content == "Going on."
            assert [turn["content"] for turn in server.script.requests[0]["messages"]] == [
                asked.content,
                broken.content,
                "go on",
            ]
            assert not chat.screen.banner.display


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _serve(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "tests.fakes.chat_server", str(port)])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the server did not start")
