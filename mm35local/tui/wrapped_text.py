"""Plain text as lines of a given width while it grows: a line that cannot change any more is wrapped once.

Lines break as Rich breaks them: greedily, so that what comes later changes the last line only, and the one before
where a word grew too long for it.
"""

from __future__ import annotations

from rich._wrap import divide_line

_NUM_OPEN = 2
"""Lines at the end that are wrapped again."""
_NARROWEST = 2
"""Cells: the width of the widest character."""


class WrappedText:
    def __init__(self, width: int) -> None:
        """`width` is in cells."""
        self.lines: list[str] = []
        self.num_closed = 0
        """Lines that stay as they are."""
        self._width = max(_NARROWEST, width)
        self._tail = ""
        """The text of the lines after them."""

    def add(self, text: str) -> None:
        """Tabs are four blanks: how far they reach would depend on what stands before them."""
        del self.lines[self.num_closed :]
        *whole, self._tail = (self._tail + text.replace("\t", "    ")).split("\n")
        for line in whole:
            self.lines += self._pieces(line, self._breaks(line))
        breaks = self._breaks(self._tail)
        self.lines += self._pieces(self._tail, breaks)
        seam = self._seam(breaks)
        self.num_closed = len(self.lines) - len(breaks) + seam
        self._tail = self._tail[breaks[seam] :]

    def _seam(self, breaks: list[int]) -> int:
        """The last line but one, or an earlier one, from which on the text breaks as it does in the whole."""
        places = range(len(breaks) - _NUM_OPEN, 0, -1)
        return next((place for place in places if self._can_begin(breaks[place], breaks[place + 1])), 0)

    def _can_begin(self, start: int, end: int) -> bool:
        """Where a word begins; or in one longer than the line still: its end Rich cuts with the blanks behind it."""
        if self._tail[start].isspace():
            return False
        if self._tail[start - 1].isspace():
            return not self._tail[:start].isspace()
        return not any(map(str.isspace, self._tail[start : end + 1]))

    def _breaks(self, line: str) -> list[int]:
        """Where each line of the screen begins."""
        return [0, *divide_line(line, self._width)]

    def _pieces(self, line: str, breaks: list[int]) -> list[str]:
        return [line[start:end].rstrip() for start, end in zip(breaks, [*breaks[1:], len(line)], strict=True)]
