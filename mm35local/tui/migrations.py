"""The shape of the history file. Append a function to MIGRATIONS; never edit one that was released.

`PRAGMA user_version` counts the functions a file has been through.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable


def _conversations_and_messages(db: sqlite3.Connection) -> None:
    db.execute(
        """
        CREATE TABLE conversations (
            id INTEGER PRIMARY KEY,
            title TEXT NOT NULL,
            model TEXT NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL
        )
        """
    )
    db.execute(
        """
        CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            conversation_id INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
            role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
            content TEXT NOT NULL,
            reasoning TEXT NOT NULL DEFAULT '',
            model TEXT NOT NULL DEFAULT '',
            state TEXT NOT NULL CHECK (state IN ('streaming', 'complete', 'stopped', 'failed')),
            error TEXT,
            is_cut INTEGER NOT NULL DEFAULT 0,
            num_prompt_tokens INTEGER,
            num_completion_tokens INTEGER,
            num_cached_tokens INTEGER,
            seconds REAL,
            created_at REAL NOT NULL
        )
        """
    )
    db.execute("CREATE INDEX messages_of_conversation ON messages (conversation_id, id)")
    db.execute("CREATE INDEX conversations_by_date ON conversations (updated_at)")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_conversations_and_messages,)


class NewerHistoryError(Exception):
    """The file has been through more migrations than this program knows."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring `db` (in autocommit mode) to the newest shape, each step in one transaction that holds the write lock."""
    while True:
        db.execute("BEGIN IMMEDIATE")
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise NewerHistoryError(version)
            if version == len(MIGRATIONS):
                return
            MIGRATIONS[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
