from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mm35local.errors import ServerError, ServerUnreachable
from mm35local.tui.attach import Launch, attach
from mm35local.tui.client import ServerClient
from mm35local.tui.connection import Connection, Link, LinkState
from mm35local.tui.events import Health, ServerState
from mm35local.tui.options import ChatOptions
from mm35local.tui.screens.leave import LeaveScreen
from tests.fakes.chat_server import ChatScript, ChatServer
from tests.tui.chat_pilot import open_chat
from tests.tui.conftest import until

LOADS_AND_SERVES = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

start = time.monotonic()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        progress = (time.monotonic() - start) / 0.4
        body = {"server": "mm35local", "status": "ok" if progress >= 1 else "loading", "progress": progress}
        body["slots"] = {"total": 4, "busy": 2}
        body["model"] = {"id": str(os.getpid()), "n_ctx": 100}
        data = json.dumps(body).encode()
        self.send_response(200 if progress >= 1 else 503)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
FAILS = """
import sys
print("some log line", file=sys.stderr)
print("error: tiny.gguf at byte 0: no GGUF\\nhint: download it again", file=sys.stderr)
sys.exit(1)
"""
CRASHES = "import os, signal; print('half a line of log', flush=True); os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def launch(port: int, tmp_path: Path) -> Callable[[str], Launch]:
    def build(program: str) -> Launch:
        return Launch(
            (sys.executable, "-c", program, str(port)), f"http://127.0.0.1:{port}", tmp_path / "logs" / "server.log"
        )

    return build


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_running_server_is_used_and_left_alone(server: ChatServer, launch: Callable[[str], Launch]) -> None:
    handle = await attach(server.url, None, launch(FAILS), lambda _health: None)
    assert handle.process is None
    await handle.close()
    async with contextlib.aclosing(ServerClient(server.url)) as client:
        assert (await client.health()).state is ServerState.READY


async def test_without_a_launch_nothing_is_started(port: int) -> None:
    with pytest.raises(ServerUnreachable):
        await attach(f"http://127.0.0.1:{port}", None, None, lambda _health: None)


async def test_a_server_is_started_watched_and_stopped(launch: Callable[[str], Launch]) -> None:
    seen: list[Health] = []
    plan = launch(LOADS_AND_SERVES)
    handle = await attach(plan.url, None, plan, seen.append)
    assert {health.state for health in seen} == {ServerState.LOADING}
    progress = [health.progress for health in seen]
    assert progress == sorted(progress)
    assert len(set(progress)) > 2
    assert handle.health.model is not None
    pid = int(handle.health.model.id)
    assert os.getsid(pid) == pid
    assert handle.failure is None
    await handle.close()
    await handle.close()
    assert not _is_running(pid)


async def test_cancelling_while_it_loads_stops_it(launch: Callable[[str], Launch]) -> None:
    seen: list[Health] = []
    plan = launch(LOADS_AND_SERVES)
    task = asyncio.create_task(attach(plan.url, None, plan, seen.append))
    await until(lambda: seen and seen[-1].model)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    model = seen[-1].model
    assert model is not None
    assert not _is_running(int(model.id))


async def test_a_failure_is_told_in_the_servers_own_two_lines(launch: Callable[[str], Launch]) -> None:
    plan = launch(FAILS)
    plan.log_path.parent.mkdir()
    plan.log_path.write_text("error: of an earlier run\n")
    with pytest.raises(ServerError) as caught:
        await attach(plan.url, None, plan, lambda _health: None)
    assert caught.value.message == "tiny.gguf at byte 0: no GGUF"
    assert caught.value.hint == "download it again"


async def test_a_crash_shows_the_end_of_the_log(launch: Callable[[str], Launch]) -> None:
    plan = launch(CRASHES)
    with pytest.raises(ServerError) as caught:
        await attach(plan.url, None, plan, lambda _health: None)
    assert "ended by signal 9" in caught.value.message
    assert "half a line of log" in caught.value.message
    assert str(plan.log_path) in caught.value.hint


async def test_a_program_that_does_not_exist(launch: Callable[[str], Launch], port: int) -> None:
    plan = launch(FAILS)
    plan = Launch(("/no/such/program",), plan.url, plan.log_path)
    with pytest.raises(ServerError, match="cannot be started"):
        await attach(plan.url, None, plan, lambda _health: None)


async def test_a_model_that_cannot_be_loaded(server: ChatServer) -> None:
    server.script.health = {"status": "failed", "error": {"message": "no GGUF", "hint": "another file"}}
    with pytest.raises(ServerError, match="no GGUF") as caught:
        await attach(server.url, None, None, lambda _health: None)
    assert caught.value.hint == "another file"


@contextlib.asynccontextmanager
async def _watching(connection: Connection, links: list[Link]) -> AsyncIterator[None]:
    task = asyncio.create_task(connection.run(links.append))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()


async def test_a_lost_server_is_found_again(server: ChatServer) -> None:
    links: list[Link] = []
    client = ServerClient(server.url)
    async with contextlib.aclosing(client):
        connection = Connection(client, None, None)
        async with _watching(connection, links):
            await asyncio.wait_for(connection.ready.wait(), 5)
            server.close()
            connection.wake()
            await until(lambda: links[-1].state is LinkState.LOST)
            assert not connection.ready.is_set()
            assert links[-1].model is not None
            with ChatServer(ChatScript(), server.port):
                await asyncio.wait_for(connection.ready.wait(), 5)


async def test_a_killed_server_of_ours_is_told_and_started_again_on_demand(launch: Callable[[str], Launch]) -> None:
    links: list[Link] = []
    plan = launch(LOADS_AND_SERVES)
    async with contextlib.aclosing(ServerClient(plan.url)) as client:
        connection = Connection(client, None, plan)
        async with _watching(connection, links):
            await asyncio.wait_for(connection.ready.wait(), 5)
            assert links[-1].model is not None
            os.kill(int(links[-1].model.id), signal.SIGKILL)
            await asyncio.sleep(0.2)
            connection.wake()
            await until(lambda: links[-1].state is LinkState.FAILED)
            assert links[-1].error is not None
            assert "signal 9" in links[-1].error.message
            connection.wake()
            await asyncio.wait_for(connection.ready.wait(), 5)
            assert LinkState.LOADING in {link.state for link in links}


async def test_a_server_that_others_use_may_run_on(launch: Callable[[str], Launch]) -> None:
    plan = launch("import os, sys, threading\n" + ENDS_WITH_STDIN + LOADS_AND_SERVES)
    for choice, is_left in (("enter", True), ("down", False)):
        async with open_chat(ChatOptions(plan.url, launch=plan)) as chat:
            model = chat.app.connection.link.model
            assert model is not None
            await chat.pilot.press("ctrl+q")
            await until(lambda: isinstance(chat.app.screen, LeaveScreen))
            assert "2 answers to others" in chat.text("LeaveScreen Static")
            await chat.pilot.press(choice, "enter")
            await until(lambda: chat.app.return_code is not None or not chat.app.is_running)
        await asyncio.sleep(0.3)
        assert _is_running(int(model.id)) == is_left
        if is_left:
            os.kill(int(model.id), signal.SIGKILL)
            await asyncio.sleep(0.2)


ENDS_WITH_STDIN = """
def watch():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=watch, daemon=True).start()
"""
