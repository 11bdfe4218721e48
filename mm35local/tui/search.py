"""How a search line becomes SQL: every word must be found, anywhere in the text, in any script.

Words of three letters and more go to the trigram index, shorter ones (and answers that still come) are read through.
"""

from __future__ import annotations

from collections.abc import Sequence

_MIN_INDEXED = 3
_NUM_AROUND = 40
_ESCAPE = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


def matching_messages(words: Sequence[str]) -> tuple[str, list[str]]:
    """A condition on `m` (messages) that holds where all words stand in the text, and its values."""
    indexed = [word for word in words if len(word) >= _MIN_INDEXED]
    parts, values = [], []
    if indexed:
        parts.append("(m.id IN (SELECT rowid FROM said WHERE said MATCH ?) OR m.state = 'streaming')")
        values.append(" ".join(_quoted(word) for word in indexed))
    for word in words:
        parts.append("m.content LIKE ? ESCAPE '\\'")
        values.append(f"%{word.translate(_ESCAPE)}%")
    return " AND ".join(parts), values


def matching_titles(words: Sequence[str]) -> tuple[str, list[str]]:
    """The same of `c` (conversations)."""
    return " AND ".join(["c.title LIKE ? ESCAPE '\\'"] * len(words)), [f"%{word.translate(_ESCAPE)}%" for word in words]


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def excerpt(text: str, words: Sequence[str]) -> str:
    """One line around the first word that is found."""
    flat = " ".join(text.split())
    places = [place for word in words if (place := _find(flat, word)) is not None]
    start = max(0, min(places, default=0) - _NUM_AROUND // 2)
    cut = flat[start : start + 2 * _NUM_AROUND]
    return ("…" if start else "") + cut + ("…" if start + 2 * _NUM_AROUND < len(flat) else "")


def _find(text: str, word: str) -> int | None:
    """Where `word` begins in `text`, whatever the case; folding may make letters longer ("ß"), so it counts them."""
    before, found, _ = text.casefold().partition(word.casefold())
    if not found:
        return None
    num_folded = 0
    for place, letter in enumerate(text):
        if num_folded >= len(before):
            return place
        num_folded += len(letter.casefold())
    return len(text)
