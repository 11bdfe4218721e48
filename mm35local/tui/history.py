"""The only seam to SQLite: conversations that survive restarts, crashes and two chats at once.

Every call runs on the history's own thread, so a slow disk never stalls the screen. The file is in WAL mode and
each call is one transaction: a killed chat loses only what had not been handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from mm35local.errors import HistoryError
from mm35local.tui.migrations import NewerHistoryError, migrate
from mm35local.tui.records import (
    Attachment,
    Conversation,
    Finding,
    Message,
    MessageState,
    Outcome,
    Role,
    ToolCall,
)
from mm35local.tui.search import excerpt, matching_messages, matching_titles
from mm35local.types import Usage

_T = TypeVar("_T")
_Row = tuple[Any, ...]
_LOCK_SECONDS = 5.0
_BIN_SECONDS = 30 * 86400.0

_LIST = """
    SELECT c.id, c.title, c.model, (SELECT COUNT(*) FROM messages m WHERE m.conversation_id = c.id), c.updated_at,
           c.pinned, COALESCE(c.leaf_id, 0)
    FROM conversations c
    WHERE c.deleted_at IS NULL AND ({condition}) ORDER BY {order} LIMIT ?
"""
_NEWEST = "c.updated_at DESC, c.id DESC"
_FOUND = """
    SELECT m.conversation_id, m.id, m.content FROM messages m JOIN conversations c ON c.id = m.conversation_id
    WHERE c.deleted_at IS NULL AND {condition} ORDER BY m.id DESC LIMIT ?
"""
_MESSAGES = """
    SELECT id, role, content, reasoning, model, state, error, is_cut, num_prompt_tokens, num_completion_tokens,
           num_cached_tokens, seconds, COALESCE(parent_id, 0), attachments, tool_calls, created_at
    FROM messages WHERE conversation_id = ? ORDER BY id
"""
_ROLES = {role.value: role for role in Role}
_COMPLETE = Outcome()
_ENDING = [_COMPLETE.state, None, 0, None, None, None, None]
"""The columns of `_COMPLETE`."""
_ADD = """
    INSERT INTO messages (conversation_id, role, content, reasoning, model, attachments, tool_calls, parent_id, state,
                          error, is_cut, num_prompt_tokens, num_completion_tokens, num_cached_tokens, seconds,
                          created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE = """
    UPDATE messages SET content = ?, reasoning = ?, tool_calls = ?, state = ?, error = ?, is_cut = ?,
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

    async def start_conversation(self, title: str, model: str, at: float = 0.0) -> int:
        """`at` is in seconds since 1970; 0 is now."""
        return await self._run(lambda: self._start(title, model, at or time.time()))

    async def add(self, conversation_id: int, message: Message) -> int:
        """Store `message` after its parent, as the end of the branch that is shown; answers its id."""
        ids = {message.parent_id: message.parent_id}
        return await self._run(lambda: self._add(conversation_id, [message], ids)[-1])

    async def add_tree(self, conversation_id: int, messages: Sequence[Message]) -> list[int]:
        """Store messages whose parents are among them, each after its parent; answers their new ids. The branch of the
        last one is shown."""
        return await self._run(lambda: self._add(conversation_id, messages, {0: 0}))

    async def save(
        self, message_id: int, content: str, reasoning: str, outcome: Outcome, tool_calls: Sequence[ToolCall] = ()
    ) -> None:
        """What an answer has become so far."""
        await self._run(lambda: self._save(message_id, content, reasoning, outcome, tool_calls))

    async def conversations(self, limit: int = 500) -> list[Conversation]:
        """Pinned ones first, then the newest first."""
        return await self._run(lambda: self._list("1", [], limit))

    async def latest(self) -> Conversation | None:
        """The one that was talked in last."""
        return next(iter(await self._run(lambda: self._list("1", [], 1, order=_NEWEST))), None)

    async def search(self, line: str, limit: int = 100) -> list[Finding]:
        """Conversations in whose title or messages every word of `line` stands, the newest first."""
        return await self._run(lambda: self._search(line.replace("\0", " ").split(), limit))

    async def messages(self, conversation_id: int) -> list[Message]:
        """All messages of all branches, in the order in which they were written."""
        return await self._run(lambda: [_message(row) for row in self._rows(_MESSAGES, conversation_id)])

    async def questions(self, limit: int = 200) -> list[str]:
        """What was asked before, the newest first, each once."""
        return await self._run(lambda: [str(row[0]) for row in self._rows(_QUESTIONS, limit)])

    async def rename(self, conversation_id: int, title: str) -> None:
        await self._set("title", title, conversation_id)

    async def pin(self, conversation_id: int, is_pinned: bool) -> None:
        await self._set("pinned", is_pinned, conversation_id)

    async def delete(self, conversation_id: int) -> None:
        """Out of sight at once, and off the disk when the history is opened a month later."""
        await self._set("deleted_at", time.time(), conversation_id)

    async def undelete(self, conversation_id: int) -> None:
        await self._set("deleted_at", None, conversation_id)

    async def show_branch(self, conversation_id: int, leaf_id: int) -> None:
        """The branch that ends at `leaf_id` is the one to open next time."""
        await self._set("leaf_id", leaf_id, conversation_id)

    async def _set(self, column: str, value: object, conversation_id: int) -> None:
        statement = f"UPDATE conversations SET {column} = ? WHERE id = ?"
        await self._run(lambda: self._open_db.execute(statement, (value, conversation_id)))

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
            db.execute("DELETE FROM conversations WHERE deleted_at < ?", (time.time() - _BIN_SECONDS,))
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

    def _rows(self, query: str, *values: object) -> list[_Row]:
        return self._open_db.execute(query, values).fetchall()

    def _start(self, title: str, model: str, at: float) -> int:
        cursor = self._open_db.execute(
            "INSERT INTO conversations (title, model, created_at, updated_at) VALUES (?, ?, ?, ?)",
            (title, model, at, at),
        )
        return int(cursor.lastrowid or 0)

    def _add(self, conversation_id: int, messages: Sequence[Message], ids: dict[int, int]) -> list[int]:
        """`ids` are those that the parents' ids stand for here; it gets those of `messages` too."""
        added: list[int] = []
        at = 0.0
        with self._transaction() as db:
            for message in messages:
                at = message.created_at or time.time()
                columns = _columns(message, ids[message.parent_id])
                added.append(int(db.execute(_ADD, (conversation_id, *columns, at)).lastrowid or 0))
                ids[message.id] = added[-1]
            if added:
                where = (at, added[-1], conversation_id)
                db.execute("UPDATE conversations SET updated_at = ?, leaf_id = ? WHERE id = ?", where)
        return added

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._open_db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _save(
        self, message_id: int, content: str, reasoning: str, outcome: Outcome, tool_calls: Sequence[ToolCall]
    ) -> None:
        said = (content, reasoning, _json(tool_calls))
        self._open_db.execute(_SAVE, (*said, *_outcome_columns(outcome), message_id))

    def _list(self, condition: str, values: Sequence[object], limit: int, order: str = "") -> list[Conversation]:
        query = _LIST.format(condition=condition, order=order or f"c.pinned DESC, {_NEWEST}")
        rows = self._rows(query, *values, limit)
        return [Conversation(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6]) for row in rows]

    def _search(self, words: Sequence[str], limit: int) -> list[Finding]:
        if not words:
            return []
        condition, values = matching_messages(words)
        found = {row[0]: row for row in reversed(self._rows(_FOUND.format(condition=condition), *values, limit))}
        in_title, title_values = matching_titles(words)
        ids = ",".join(str(number) for number in found)
        listed = self._list(f"c.id IN ({ids}) OR ({in_title})", title_values, limit, order=_NEWEST)
        return [_finding(conversation, found.get(conversation.id), words) for conversation in listed]


def _finding(conversation: Conversation, row: _Row | None, words: Sequence[str]) -> Finding:
    return Finding(conversation) if row is None else Finding(conversation, excerpt(row[2], words), row[1])


def _connect(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", timeout=_LOCK_SECONDS, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _columns(message: Message, parent_id: int) -> tuple[object, ...]:
    """Of `_ADD`, between the conversation and the time."""
    said = (message.role, message.content, message.reasoning, message.model)
    more = (_json(message.attachments), _json(message.tool_calls), parent_id or None)
    return (*said, *more, *_outcome_columns(message.outcome))


def _outcome_columns(outcome: Outcome) -> tuple[object, ...]:
    usage = outcome.usage
    counts = usage and (usage.num_prompt_tokens, usage.num_completion_tokens, usage.num_cached_tokens)
    return (outcome.state, outcome.error, outcome.is_cut, *(counts or (None, None, None)), outcome.seconds)


def _json(items: Sequence[Attachment] | Sequence[ToolCall]) -> str:
    return json.dumps([asdict(item) for item in items], ensure_ascii=False)


def _items(kind: type[_T], column: str) -> tuple[_T, ...]:
    return () if column == "[]" else tuple(kind(**item) for item in json.loads(column))


def _message(row: _Row) -> Message:
    """A row of `_MESSAGES`. All questions end alike, and share how: a long conversation has thousands."""
    number, role, content, reasoning, model, *ending, parent_id, attachments, tool_calls, created_at = row
    return Message(
        role=_ROLES[role],
        content=content,
        reasoning=reasoning,
        model=model,
        outcome=_COMPLETE if ending == _ENDING else _outcome(*ending),
        id=number,
        parent_id=parent_id,
        attachments=_items(Attachment, attachments),
        tool_calls=_items(ToolCall, tool_calls),
        created_at=created_at,
    )


def _outcome(state: str, error: str | None, is_cut: int, *counts: Any) -> Outcome:
    *num_tokens, seconds = counts
    usage = None if num_tokens[0] is None else Usage(*num_tokens)
    return Outcome(MessageState(state), usage, seconds, error, bool(is_cut))
