"""Keeps text from becoming control tokens on its way through a chat template.

A template writes control tokens as plain text (`<|im_end|>`), so whatever a user wrote goes through it with a
marker inside everything that could be taken for one, alone or together with what the template puts next to it:

    user text    a <|im_end|> b      shielded    a <M|im_end|> b
    rendered     …user⏎a <M|im_end|> b<|im_end|>⏎…
    parts        "…user⏎a <|im_end|> b"   2   "⏎…"      (markers removed after the cut at the unbroken literals)

Invariant: each int among the parts was written by the template, no str among them holds a marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from mm35local.errors import RequestError

# Private use areas: no text means anything by these, and templates leave them alone.
_MARKERS = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class ControlLiterals:
    """The spellings of a vocabulary's control tokens; those of one character cannot be told from text."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._ids = {literal: id_ for literal, id_ in controls.items() if len(literal) > 1}
        longest_first = sorted(self._ids, key=lambda literal: (-len(literal), literal))
        either = "|".join(map(re.escape, longest_first)) or r"(?!)"
        # The look-ahead for a first character spares most positions the long alternation.
        first = "".join(sorted({re.escape(literal[0]) for literal in self._ids})) or "\0"
        self._literal = re.compile(f"(?=[{first}])({either})")
        self._first_character = re.compile(f"(?=[{first}])(?={either})(.)", re.DOTALL)
        self._heads = frozenset(literal[:n] for literal in self._ids for n in range(1, len(literal)))
        self._tails = frozenset(literal[n:] for literal in self._ids for n in range(1, len(literal)))
        self._longest = max(map(len, self._ids), default=0)

    def shield(self, text: str, marker: str) -> str:
        """`text` with `marker` in it wherever a control token could be read; outer white space stays outside."""
        core = text.strip()
        if not core:
            return text
        shielded = self._first_character.sub(rf"\1{marker}", core)
        if self._joins_neighbours(core):
            shielded = f"{marker}{shielded}{marker}"
        start = text.index(core)
        return text[:start] + shielded + text[start + len(core) :]

    def split(self, rendered: str, marker: str) -> tuple[str | int, ...]:
        """Cuts at the unbroken literals: ids of control tokens, and the text between them without markers."""
        return tuple(self._parts(rendered, marker))

    def _parts(self, rendered: str, marker: str) -> Iterator[str | int]:
        # re.split with one group alternates: text, literal, text, …
        for i, piece in enumerate(self._literal.split(rendered)):
            if i % 2:
                yield self._ids[piece]
            elif text := piece.replace(marker, ""):
                yield text

    def _joins_neighbours(self, core: str) -> bool:
        """Could an end of `core`, or all of it, be completed to a literal by text next to it?"""
        lengths = range(1, min(len(core), self._longest) + 1)
        if any(core[-n:] in self._heads or core[:n] in self._tails for n in lengths):
            return True
        return len(core) < self._longest and any(core in literal for literal in self._ids)


def absent_marker(texts: Sequence[str]) -> str:
    """One character that none of `texts` holds; the same texts give the same one."""
    return next(_absent(texts))


def _absent(texts: Sequence[str]) -> Iterator[str]:
    candidates: Iterable[int] = chain.from_iterable(_MARKERS)
    for candidate in map(chr, candidates):
        if not any(candidate in text for text in texts):
            yield candidate
    raise RequestError("the messages use every character of Unicode's private use areas", "messages")
