"""What a client should know about its request and no wire's shape has a place for: a header says it, and the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Effort

_log = logging.getLogger(__name__)
HEADER = "X-MM35-Note"


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
        _log.warning("%s", note)
    return {HEADER: "; ".join(notes).encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")}
