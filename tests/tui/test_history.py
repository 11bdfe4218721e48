from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.errors import HistoryError
from mm35local.tui.history import History
from mm35local.tui.migrations import MIGRATIONS, migrate
from mm35local.tui.records import Message, MessageState, Outcome, Role
from mm35local.types import Usage

SCHEMA = {
    "conversations": ["id", "title", "model", "created_at", "updated_at"],
    "messages": [
        "id",
        "conversation_id",
        "role",
        "content",
        "reasoning",
        "model",
        "state",
        "error",
        "is_cut",
        "num_prompt_tokens",
        "num_completion_tokens",
        "num_cached_tokens",
        "seconds",
        "created_at",
    ],
}


def test_the_final_schema() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    migrate(db)
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    assert {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables} == SCHEMA
    indexes = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert indexes == {"messages_of_conversation", "conversations_by_date"}
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()


async def _kept(path: Path) -> list[Message]:
    history = History(path)
    await history.open()
    try:
        newest, *_ = await history.conversations()
        return await history.messages(newest.id)
    finally:
        await history.close()


async def test_a_conversation_survives(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "history.sqlite3"
    history = History(path)
    await history.open()
    first = await history.start_conversation("first", "m")
    second = await history.start_conversation("second", "m")
    await history.add(second, Message(Role.USER, "hi"))
    answer = await history.add(second, Message(Role.ASSISTANT, "", model="m", outcome=Outcome(MessageState.STREAMING)))
    outcome = Outcome(MessageState.FAILED, Usage(1, 2, 1), 0.5, "broken", is_cut=True)
    await history.save(answer, "hello", "hm", outcome)
    assert [c.id for c in await history.conversations()] == [second, first]
    assert [c.num_messages for c in await history.conversations()] == [2, 0]
    await history.add(first, Message(Role.USER, "again"))
    assert [c.id for c in await history.conversations()] == [first, second]
    assert await history.questions() == ["again", "hi"]
    assert [m.content for m in await history.messages(first)] == ["again"]
    question, kept = await history.messages(second)
    assert (question.role, question.content) == (Role.USER, "hi")
    assert kept == Message(Role.ASSISTANT, "hello", "hm", "m", outcome, answer)
    await history.close()
    await history.close()
    assert [m.content for m in await _kept(path)] == ["again"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
async def test_any_text_comes_back_as_it_was(text: str) -> None:
    history = History(None)
    await history.open()
    conversation = await history.start_conversation(text, text)
    answer = await history.add(conversation, Message(Role.ASSISTANT, text))
    await history.save(answer, text, text, Outcome())
    [kept] = await history.messages(conversation)
    assert (kept.content, kept.reasoning) == (text, text)
    await history.close()


async def test_a_kill_loses_nothing_that_was_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    program = f"""
import asyncio, pathlib
from mm35local.tui.history import History
from mm35local.tui.records import Message, MessageState, Outcome, Role

async def main():
    history = History(pathlib.Path({str(path)!r}))
    await history.open()
    conversation = await history.start_conversation("t", "m")
    answer = await history.add(conversation, Message(Role.ASSISTANT, "", outcome=Outcome(MessageState.STREAMING)))
    for number in range(100):
        await history.save(answer, "x" * number, "", Outcome(MessageState.STREAMING))
    print("saved", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"saved\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    [message] = await _kept(path)
    assert (message.content, message.outcome.state) == ("x" * 99, MessageState.STREAMING)


async def test_two_chats_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    one, two = History(path), History(path)
    await one.open()
    await two.open()
    for number in range(20):
        for history in (one, two):
            conversation = await history.start_conversation(str(number), "m")
            await history.add(conversation, Message(Role.USER, "hi"))
    assert len(await one.conversations()) == 40
    await one.close()
    await two.close()


async def test_a_file_that_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"not a database, whatever its name says" * 100)
    history = History(path)
    with pytest.raises(HistoryError, match=r"history\.sqlite3"):
        await history.open()
    await history.close()
    assert path.read_bytes().startswith(b"not a database")


async def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    history = History(path)
    with pytest.raises(HistoryError, match="newer") as caught:
        await history.open()
    assert caught.value.hint == "update mm35local"
    await history.close()
