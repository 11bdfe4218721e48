"""Finds the end of a JSON object in text that is still coming.

Invariant: however the text is cut, the same character ends it.
"""

from __future__ import annotations

import json


class ObjectEnd:
    """Only brackets and strings are looked at; whether the rest is JSON is asked of `is_valid` afterwards."""

    def __init__(self) -> None:
        self._open: list[str] = []
        """The closing brackets that are still due, outermost first."""
        self._is_string = False
        self._is_escaped = False

    def find(self, text: str) -> int | None:
        """How many characters of `text` complete the object; None if all of it is inside. Begins at a `{`."""
        for i, character in enumerate(text):
            if self._is_string:
                self._in_string(character)
            elif character == '"':
                self._is_string = True
            elif character in "{[":
                self._open.append("}" if character == "{" else "]")
            elif character in "}]" and self._open:
                self._open.pop()
                if not self._open:
                    return i + 1
        return None

    @property
    def missing(self) -> str:
        """What closes everything that is open."""
        string = ("\\" if self._is_escaped else "") + '"' if self._is_string else ""
        return string + "".join(reversed(self._open))

    def _in_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._is_string = False


def is_valid(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
