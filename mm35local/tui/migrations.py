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


def _branches_and_search(db: sqlite3.Connection) -> None:
    """Messages become a tree (an old conversation is one path), and everything said can be searched.

    Trigrams find parts of words in every script. No cascade over `parent_id`: SQLite follows those 1,000 deep only.
    """
    for column in ("pinned INTEGER NOT NULL DEFAULT 0", "deleted_at REAL", "leaf_id INTEGER"):
        db.execute(f"ALTER TABLE conversations ADD COLUMN {column}")
    db.execute("ALTER TABLE messages ADD COLUMN parent_id INTEGER REFERENCES messages (id)")
    db.execute("ALTER TABLE messages ADD COLUMN attachments TEXT NOT NULL DEFAULT '[]'")
    db.execute("ALTER TABLE messages ADD COLUMN tool_calls TEXT NOT NULL DEFAULT '[]'")
    db.execute("CREATE INDEX messages_by_parent ON messages (parent_id)")
    db.execute("CREATE INDEX streaming_messages ON messages (id) WHERE state = 'streaming'")
    db.execute(
        """
        UPDATE messages SET parent_id = (
            SELECT MAX(m.id) FROM messages m WHERE m.conversation_id = messages.conversation_id AND m.id < messages.id
        )
        """
    )
    db.execute(
        "UPDATE conversations SET leaf_id = (SELECT MAX(id) FROM messages WHERE conversation_id = conversations.id)"
    )
    db.execute(
        "CREATE VIRTUAL TABLE said"
        " USING fts5 (content, content = 'messages', content_rowid = 'id', tokenize = 'trigram')"
    )
    _index_what_is_said(db)
    db.execute("INSERT INTO said (rowid, content) SELECT id, content FROM messages WHERE state <> 'streaming'")


def _index_what_is_said(db: sqlite3.Connection) -> None:
    """A growing answer is written twice a second: it is indexed once it has ended."""
    forget = "INSERT INTO said (said, rowid, content) VALUES ('delete', old.id, old.content);"
    learn = "INSERT INTO said (rowid, content) VALUES (new.id, new.content);"
    for name, event, row, action in (
        ("said_added", "INSERT", "new", learn),
        ("said_removed", "DELETE", "old", forget),
        ("said_forgotten", "UPDATE OF content, state", "old", forget),
        ("said_learnt", "UPDATE OF content, state", "new", learn),
    ):
        when = f"WHEN {row}.state <> 'streaming'"
        # Of two triggers on one event nobody promises the order: forgetting comes before the update.
        moment = "BEFORE" if action is forget else "AFTER"
        db.execute(f"CREATE TRIGGER {name} {moment} {event} ON messages {when} BEGIN {action} END")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_conversations_and_messages, _branches_and_search)


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
