"""The only seam to SQLite: conversations that survive restarts, crashes and two chats at once.

Every call runs on the history's own thread, so a slow disk never stalls the screen. The file is in WAL mode and
each call is one transaction: a killed chat loses only what had not been handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mm35local.errors import HistoryError
from mm35local.tui.migrations import NewerHistoryError, migrate
from mm35local.tui.records import Conversation, Message, MessageState, Outcome, Role
from mm35local.types import Usage

_T = TypeVar("_T")
_LOCK_SECONDS = 5.0

_CONVERSATIONS = """
    SELECT c.id, c.title, c.model, COUNT(m.id), c.updated_at
    FROM conversations c LEFT JOIN messages m ON m.conversation_id = c.id
    GROUP BY c.id ORDER BY c.updated_at DESC, c.id DESC LIMIT ?
"""
_MESSAGES = """
    SELECT id, role, content, reasoning, model, state, error, is_cut,
           num_prompt_tokens, num_completion_tokens, num_cached_tokens, seconds
    FROM messages WHERE conversation_id = ? ORDER BY id
"""
_ADD = """
    INSERT INTO messages (conversation_id, role, content, reasoning, model, state, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SAVE = """
    UPDATE messages SET content = ?, reasoning = ?, state = ?, error = ?, is_cut = ?,
           num_prompt_tokens = ?, num_completion_tokens = ?, num_cached_tokens = ?, seconds = ?
    WHERE id = ?
"""
_QUESTIONS = """
    SELECT content FROM messages WHERE role = 'user' GROUP BY content ORDER BY MAX(id) DESC LIMIT ?
"""


class History:
    """Conversations in one file; `path` None keeps them in memory. `open` it before use, `close` it after."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history")

    async def open(self) -> None:
        """Raises HistoryError if the file cannot be used; then nothing of it was changed."""
        await self._run(self._open)

    async def close(self) -> None:
        """Safe to call twice."""
        if self._db is not None:
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def start_conversation(self, title: str, model: str) -> int:
        return await self._run(lambda: self._start(title, model))

    async def add(self, conversation_id: int, message: Message) -> int:
        """Append `message`; answers its id."""
        return await self._run(lambda: self._add(conversation_id, message))

    async def save(self, message_id: int, content: str, reasoning: str, outcome: Outcome) -> None:
        """What an answer has become so far."""
        await self._run(lambda: self._save(message_id, content, reasoning, outcome))

    async def conversations(self, limit: int = 500) -> list[Conversation]:
        """The newest first."""
        return await self._run(lambda: [Conversation(*row) for row in self._rows(_CONVERSATIONS, limit)])

    async def messages(self, conversation_id: int) -> list[Message]:
        return await self._run(lambda: [_message(row) for row in self._rows(_MESSAGES, conversation_id)])

    async def questions(self, limit: int = 200) -> list[str]:
        """What was asked before, the newest first, each once."""
        return await self._run(lambda: [str(row[0]) for row in self._rows(_QUESTIONS, limit)])

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except NewerHistoryError as problem:
            raise HistoryError(str(self.path), "it was written by a newer mm35local", "update mm35local") from problem
        except (sqlite3.Error, OSError) as problem:
            raise HistoryError(str(self.path), str(problem)) from problem

    # --- on the history's thread ---

    def _open(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Conversations are private; the -wal and -shm files take over this mode.
            self.path.touch(mode=0o600)
        with contextlib.ExitStack() as undo:
            db = undo.enter_context(contextlib.closing(_connect(self.path)))
            migrate(db)
            undo.pop_all()
        self._db = db

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    @property
    def _open_db(self) -> sqlite3.Connection:
        assert self._db is not None, "History.open was not awaited"
        return self._db

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self._open_db.execute(query, values).fetchall()

    def _start(self, title: str, model: str) -> int:
        now = time.time()
        cursor = self._open_db.execute(
            "INSERT INTO conversations (title, model, created_at, updated_at) VALUES (?, ?, ?, ?)",
            (title, model, now, now),
        )
        return int(cursor.lastrowid or 0)

    def _add(self, conversation_id: int, message: Message) -> int:
        now = time.time()
        values = (conversation_id, message.role, message.content, message.reasoning, message.model)
        db = self._open_db
        db.execute("BEGIN IMMEDIATE")
        try:
            cursor = db.execute(_ADD, (*values, message.outcome.state, now))
            db.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (now, conversation_id))
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        return int(cursor.lastrowid or 0)

    def _save(self, message_id: int, content: str, reasoning: str, outcome: Outcome) -> None:
        usage = outcome.usage
        counts = usage and (usage.num_prompt_tokens, usage.num_completion_tokens, usage.num_cached_tokens)
        said = (content, reasoning, outcome.state, outcome.error, outcome.is_cut)
        self._open_db.execute(_SAVE, (*said, *(counts or (None, None, None)), outcome.seconds, message_id))


def _connect(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", timeout=_LOCK_SECONDS, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _message(row: sqlite3.Row) -> Message:
    counts = (row["num_prompt_tokens"], row["num_completion_tokens"], row["num_cached_tokens"])
    return Message(
        role=Role(row["role"]),
        content=row["content"],
        reasoning=row["reasoning"],
        model=row["model"],
        outcome=Outcome(
            state=MessageState(row["state"]),
            usage=None if counts[0] is None else Usage(*counts),
            seconds=row["seconds"],
            error=row["error"],
            is_cut=bool(row["is_cut"]),
        ),
        id=row["id"],
    )
