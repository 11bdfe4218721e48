"""The server's keys, gathered from flags, environment and file; never printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mm35local.errors import UsageError

if TYPE_CHECKING:
    from mm35local.settings import Settings


def api_keys(wish: Settings) -> tuple[str, ...]:
    """Those of `api_key` first, then the file's. Raises UsageError for a file that holds none."""
    given = wish.api_key.get_secret_value().split(",") if wish.api_key else []
    return tuple(dict.fromkeys(key for key in map(str.strip, [*given, *_from_file(wish)]) if key))


def first_key(wish: Settings) -> str | None:
    """The one that a client of the server sends."""
    return next(iter(api_keys(wish)), None)


def _from_file(wish: Settings) -> list[str]:
    path = wish.api_key_file
    if path is None:
        return []
    try:
        keys = path.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        raise UsageError(f"--api-key-file {path}: {error}", "give a text file with one key a line") from error
    if not keys:
        raise UsageError(f"--api-key-file {path} holds no key", "write one key a line into it")
    return keys
