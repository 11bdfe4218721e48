"""Stop strings in a stream of text: what might become one is held back until it is clear.

Invariant: however the text is cut into calls, the concatenated output is the same.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """The text ends before the stop string that is complete first; of several complete at once, the longest."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.found: str | None = None
        """The one that ended the text."""

    @property
    def has_any(self) -> bool:
        """Is there a string to look for?"""
        return bool(self._stops)

    @property
    def is_found(self) -> bool:
        return self.found is not None

    def feed(self, text: str) -> str:
        """The part that no stop string can reach any more. After a hit (`is_found`) always empty."""
        if self.is_found:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        hit = self._first_hit(text)
        if hit is not None:
            start, self.found = hit
            self._held = ""
            return text[:start]
        num_held = self._num_undecided(text)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """The end of the text: what was held back after all."""
        held, self._held = self._held, ""
        return held

    def _first_hit(self, text: str) -> tuple[int, str] | None:
        """Where it begins, and which."""
        hits = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        return min(hits)[1:] if hits else None

    def _num_undecided(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        for num in range(longest, 0, -1):
            if any(stop.startswith(text[-num:]) for stop in self._stops):
                return num
        return 0
