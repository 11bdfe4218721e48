"""One answer's calls while their text comes: name, then arguments, then the end of the object.

Invariant: nothing is lost. What turns out to be no call becomes text with a warning, and a call that ends too early
is closed if that makes it JSON.
"""

from __future__ import annotations

from mm35local.chat.deltas import Delta, TextDelta, ToolCallDelta
from mm35local.chat.json_object import ObjectEnd, is_valid


class CallReader:
    """`begin`, `arguments`*, `end` for each call. The deltas come out of these; `warnings` counts what was odd."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._index = -1
        self._name = ""
        self._held = ""
        """White space before the object, or after it."""
        self._pieces: list[str] = []
        self._end: ObjectEnd | None = None
        """Set from the object's first character to its last."""
        self._is_over = True

    def begin(self, name: str) -> None:
        self._name, self._held, self._pieces = name.strip(), "", []
        self._end, self._is_over = None, False

    def arguments(self, text: str) -> list[Delta]:
        if self._is_over:
            return [TextDelta(text)]
        if self._end is None and not self._pieces:
            return self._before(text)
        if self._end is None:
            return self._after(text)
        return self._inside(text)

    def end(self, *, is_cut: bool) -> list[Delta]:
        """No more text for this call. `is_cut`: the answer ended because there was no room for more."""
        if self._is_over:
            return []
        self._is_over = True
        if self._end is None:
            return self._end_outside(is_cut=is_cut)
        written = "".join(self._pieces)
        missing = self._end.missing
        self._end = None
        if is_cut:
            self._warn("was cut off")
            return []
        self._warn("ended before its arguments did")
        return [ToolCallDelta(self._index, arguments=missing)] if is_valid(written + missing) else []

    def _end_outside(self, *, is_cut: bool) -> list[Delta]:
        if self._pieces:
            return []
        if is_cut or not self._name:
            return self._as_text("")
        self._warn("has no arguments")
        return [self._named(), ToolCallDelta(self._index, arguments="{}")]

    def _before(self, text: str) -> list[Delta]:
        self._held += text
        rest = self._held.lstrip()
        if not rest:
            return []
        if rest[0] != "{" or not self._name:
            self._is_over = True
            return self._as_text(self._held)
        self._held, self._end = "", ObjectEnd()
        return [self._named(), *self._inside(rest)]

    def _inside(self, text: str) -> list[Delta]:
        assert self._end is not None, "the object has begun"
        length = self._end.find(text)
        piece = text if length is None else text[:length]
        self._pieces.append(piece)
        deltas: list[Delta] = [ToolCallDelta(self._index, arguments=piece)]
        if length is None:
            return deltas
        self._end = None
        if not is_valid("".join(self._pieces)):
            self._warn("has arguments that are no JSON object")
        return deltas + self._after(text[length:])

    def _after(self, text: str) -> list[Delta]:
        """White space behind the object means nothing; anything else is text again."""
        self._held += text
        if not self._held.strip():
            return []
        self._warn("is followed by text")
        self._is_over = True
        return [TextDelta(self._held)]

    def _named(self) -> ToolCallDelta:
        self._index += 1
        return ToolCallDelta(self._index, name=self._name)

    def _as_text(self, arguments: str) -> list[Delta]:
        self._warn("is no call: it has no JSON object")
        return [TextDelta(text)] if (text := self._name + arguments) else []

    def _warn(self, problem: str) -> None:
        self._warnings.append(f"the call of {self._name[:100]!r} {problem}")
