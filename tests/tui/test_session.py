from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mm35local.tui.client import ServerClient
from mm35local.tui.options import ChatOptions
from mm35local.tui.records import Message, MessageState
from mm35local.tui.reply import Reply
from mm35local.tui.session import ChatSession
from tests.fakes.chat_server import ChatServer, Fail, Finish, Pause, Say, Think
from tests.tui.conftest import until

READY = asyncio.Event()
READY.set()


@contextlib.asynccontextmanager
async def _session(server: ChatServer, options: ChatOptions | None = None) -> AsyncIterator[ChatSession]:
    client = ServerClient(server.url)
    session = ChatSession(client, options or ChatOptions(server.url))
    await session.open()
    try:
        yield session
    finally:
        await session.close()
        await client.aclose()


async def _ask(session: ChatSession, question: str) -> Reply:
    reply = await session.ask(question, "m")
    await session.answer(reply, READY)
    return reply


async def _reopened(server: ChatServer, path: Path) -> list[Message]:
    async with _session(server, ChatOptions(server.url, history_path=path, continue_last=True)) as session:
        return session.messages


async def _begun(session: ChatSession) -> tuple[Reply, asyncio.Task[None]]:
    """An answer of which something has come."""
    reply = await session.ask("hi", "m")
    task = asyncio.create_task(session.answer(reply, READY))
    await until(lambda: reply.content.parts)
    return reply, task


async def test_the_conversation_is_sent_in_turns(server: ChatServer) -> None:
    server.script.scripts = [(Fail("broken"),), (Say("Hello."),)]
    async with _session(server, ChatOptions(server.url, system="Be brief.")) as session:
        failed = await _ask(session, "one")
        assert failed.error is not None
        await _ask(session, "two")
        await _ask(session, "three")
    assert server.script.requests[2]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\n\ntwo"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "three"},
    ]


async def test_an_answer_is_kept_with_its_figures(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    server.script.scripts = [(Think("hm"), Say("Hel"), Pause(0.2), Say("lo."), Finish("length", 7, 3))]
    async with _session(server, ChatOptions(server.url, history_path=path)) as session:
        await _ask(session, "  \n\nhi there " + "x" * 100)
        assert session.title.startswith("hi there xxx")
        assert len(session.title) == 60
        assert session.num_context_tokens == 7 + 3
        assert session.last_answer == "Hello."
        expected = session.messages
    question, answer = await _reopened(server, path)
    assert question.content == expected[0].content
    assert answer == expected[1]
    assert answer.reasoning == "hm"
    assert answer.outcome.is_cut
    assert answer.outcome.seconds is not None
    assert answer.outcome.seconds > 0.05  # of 0.2; a busy machine may see the first token late


async def test_what_came_is_on_disk_within_a_second(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    server.script.scripts = [(Say("Hello"), Pause(30))]
    async with _session(server, ChatOptions(server.url, history_path=path)) as session:
        _, task = await _begun(session)
        await asyncio.sleep(0.9)
        _, answer = await _reopened(server, path)
        assert (answer.content, answer.outcome.state) == ("Hello", MessageState.STREAMING)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        _, answer = await _reopened(server, path)
        assert (answer.content, answer.outcome.state) == ("Hello", MessageState.STOPPED)
        assert session.last_answer == "Hello"


async def test_closing_in_mid_answer_keeps_what_came(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    server.script.scripts = [(Say("Hello"), Pause(30))]
    async with _session(server, ChatOptions(server.url, history_path=path)) as session:
        _, task = await _begun(session)
        await session.close()
        _, answer = await _reopened(server, path)
        assert answer.content == "Hello"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_end_that_is_cancelled_while_it_is_stored_is_stored_by_closing(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that goes cancels what runs and at once again."""
    path = tmp_path / "history.sqlite3"
    server.script.scripts = [(Say("Hello"), Pause(30))]
    async with _session(server, ChatOptions(server.url, history_path=path)) as session:
        reply, task = await _begun(session)
        with monkeypatch.context() as context:
            context.setattr(session.history, "save", lambda *_: asyncio.sleep(30))
            task.cancel()
            await until(lambda: reply.state is MessageState.STOPPED)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await session.close()
        _, answer = await _reopened(server, path)
    assert (answer.content, answer.outcome.state) == ("Hello", MessageState.STOPPED)


async def test_without_a_usable_history_the_chat_goes_on(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"no database" * 1000)
    async with _session(server, ChatOptions(server.url, history_path=path)) as session:
        error = session.take_history_error()
        assert error is not None
        assert session.take_history_error() is None
        await _ask(session, "hi")
        assert session.last_answer == "Hello."


async def test_undecodable_bytes_of_a_command_line_do_no_harm(server: ChatServer) -> None:
    async with _session(server, ChatOptions(server.url, system="\udcff")) as session:
        reply = await _ask(session, "a\udcffb")
        assert reply.error is None
    assert server.script.requests[0]["messages"][1]["content"] == "a?b"
