"""What a client should know about its request and no wire's shape has a place for: a header says it, and the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Effort

_log = logging.getLogger(__name__)
HEADER = "X-MM35-Note"
MOST_CHARS = 1000
"""Of the header, for proxies and clients take none beyond a few kilobytes; the log has the rest."""


def note_headers(
    effort: Effort, dialect: Dialect, more: Sequence[str] = (), *, has_tools: bool = False
) -> dict[str, str]:
    """`has_tools`: did the request offer any?"""
    notes = list(more)
    if has_tools and not dialect.has_tools:
        notes.append("this model knows no tools: they were not used")
    if effort is Effort.HIGH and not dialect.has_effort:
        notes.append("this model has no reasoning effort: reasoning_effort was not used")
    if not notes:
        return {}
    for note in notes:
        _log.warning("%s", _printable(note))
    text = "; ".join(notes)
    value = _printable(text[:MOST_CHARS]).encode("ascii", "replace").decode()
    return {HEADER: value if len(text) <= MOST_CHARS else value + " ..."}


def _printable(text: str) -> str:
    """In one line: clients' words may be in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
