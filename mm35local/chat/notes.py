"""What had to be changed in a history before a model could read it: countable by kind, explained by message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Change(StrEnum):
    """The values are short and fixed, fit for a metric's label."""

    MERGED = "merged"
    """Neighbours of one role became one message."""
    FOLDED = "folded"
    """A system or developer message that is not at the beginning is read as the user's words."""
    LEFT_OUT = "left_out"
    """An assistant message that says and calls nothing."""
    USER_ADDED = "user_added"
    """The history did not begin with the user: an empty user message does now."""
    BRIDGED = "bridged"
    """A user followed a tool's result: a short assistant message stands between them."""
    CALL_ADDED = "call_added"
    """A result without a call: a call without arguments stands before it."""
    RESULT_ADDED = "result_added"
    """A call without a result: a result that says so follows it."""
    MATCHED = "matched"
    """A result whose id no call has answers the first open call."""
    MOVED = "moved"
    """Results in another order than their calls."""
    ID_MAPPED = "id_mapped"
    """A call's id was not nine letters and digits, or not the only one of its kind."""
    IMAGE_MOVED = "image_moved"
    """Images of a system prompt or an answer stand in the next user message: no other may have them."""
    REPAIRED = "repaired"
    """A call without a name, or whose arguments are no JSON object; or text with half a character in it."""


@dataclass(frozen=True, slots=True)
class Note:
    change: Change
    index: int
    """Which of the given messages, from 0."""

    def __str__(self) -> str:
        return f"message {self.index}: {self.change.value.replace('_', ' ')}"
