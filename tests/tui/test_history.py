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
from mm35local.tui.records import Message, MessageState, Outcome, Role, as_path
from mm35local.tui.search import excerpt
from mm35local.types import Usage

SCHEMA = {
    "conversations": ["id", "title", "model", "created_at", "updated_at", "pinned", "deleted_at", "leaf_id"],
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
        "parent_id",
        "attachments",
        "tool_calls",
    ],
}


def test_the_final_schema() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    migrate(db)
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    assert "said" in tables
    tables = [table for table in tables if not table.startswith("said")]
    assert {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables} == SCHEMA
    indexes = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert indexes >= {"messages_of_conversation", "conversations_by_date", "messages_by_parent", "streaming_messages"}
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


async def _open(path: Path | None = None) -> History:
    history = History(path)
    await history.open()
    return history


async def test_a_history_of_the_first_shape_becomes_one_path_each(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    db = sqlite3.connect(path, isolation_level=None)
    MIGRATIONS[0](db)
    db.execute("PRAGMA user_version = 1")
    for number in (1, 2):
        db.execute("INSERT INTO conversations VALUES (?, 't', 'm', 1, 2)", (number,))
    for number in range(1, 7):
        role = "user" if number % 4 in (1, 2) else "assistant"
        values = (number, 1 + number % 2, role, f"number {number}")
        db.execute(
            "INSERT INTO messages (id, conversation_id, role, content, state, created_at)"
            " VALUES (?, ?, ?, ?, 'complete', 1)",
            values,
        )
    db.close()
    history = await _open(path)
    assert [(m.id, m.parent_id) for m in await history.messages(1)] == [(2, 0), (4, 2), (6, 4)]
    assert {c.id: c.leaf_id for c in await history.conversations()} == {1: 6, 2: 5}
    assert [finding.message_id for finding in await history.search("number 4")] == [4]
    await history.close()


@given(st.text(alphabet="aßİŉ \n", max_size=300), st.text(alphabet="aßİ", max_size=60))
def test_an_excerpt_shows_the_word_whatever_folding_does_to_lengths(before: str, after: str) -> None:
    cut = excerpt(f"{before}Needle{after}", ["nEEDLE"])
    assert "Needle" in cut
    assert len(cut) <= 2 + 2 * 40


async def test_search_finds_every_word_anywhere_in_any_script() -> None:
    history = await _open()
    texts = ["The metadata of a [/file]", "数据库很重要", "100% sure_thing", 'he said "AND" OR nothing']
    for text in texts:
        await history.add(await history.start_conversation(f"about {text[:3]}", "m"), Message(Role.USER, text))
    growing = Message(Role.ASSISTANT, "half a sentence", outcome=Outcome(MessageState.STREAMING))
    answer = await history.add(await history.start_conversation("growing", "m"), growing)

    async def found(line: str) -> list[str]:
        return [finding.excerpt or finding.conversation.title for finding in await history.search(line)]

    assert await found("data") == [texts[0]]
    assert await found("FILE metadata") == [texts[0]]
    assert await found("据库") == await found("数据库") == [texts[1]]
    assert await found("100%") == [texts[2]]
    assert await found("1%") == await found("nowhere") == await found(" ") == []
    assert await found('"AND" or') == [texts[3]]
    assert await found("growing") == ["growing"]
    assert await found("half") == ["half a sentence"]
    await history.save(answer, "a whole sentence", "", Outcome())
    assert await found("half") == []
    assert await found("whole") == ["a whole sentence"]
    await history.close()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
async def test_any_search_line_is_answered(line: str, text: str) -> None:
    history = await _open()
    await history.add(await history.start_conversation("t", "m"), Message(Role.USER, text))
    await history.search(line.encode("utf-8", "replace").decode())
    word = text.split()[0] if text.split() else ""
    if word and "\x00" not in text:
        assert len(await history.search(word)) == 1
    await history.close()


async def test_pinned_renamed_deleted_and_back(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    history = await _open(path)
    one, two = [await history.start_conversation(title, "m", at) for title, at in (("one", 1.0), ("two", 2.0))]
    await history.add_tree(one, as_path([Message(Role.USER, "first words"), Message(Role.ASSISTANT, "x")]))
    await history.pin(two, True)
    await history.rename(two, "second")
    assert [(c.title, c.is_pinned) for c in await history.conversations()] == [("second", True), ("one", False)]
    latest = await history.latest()
    assert latest is not None
    assert latest.id == one
    await history.delete(one)
    assert [c.id for c in await history.conversations()] == [two]
    assert await history.search("first") == []
    await history.undelete(one)
    assert len(await history.messages(one)) == 2
    assert [finding.conversation.id for finding in await history.search("first")] == [one]
    await history.delete(one)
    await history.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE conversations SET deleted_at = 1 WHERE deleted_at IS NOT NULL")
    db.close()
    history = await _open(path)
    assert await history.messages(one) == []
    await history.undelete(one)
    assert [c.id for c in await history.conversations()] == [two]
    await history.close()


async def test_a_long_conversation_can_be_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    history = await _open(path)
    number = await history.start_conversation("long", "m")
    await history.add_tree(number, as_path(Message(Role.USER, str(i)) for i in range(3000)))
    await history.delete(number)
    await history.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE conversations SET deleted_at = 1")
    db.close()
    history = await _open(path)
    assert await history.messages(number) == []
    await history.close()
