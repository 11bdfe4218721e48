"""Text of people and models, made safe for a terminal and for UTF-8. What is stored stays as it came."""

from __future__ import annotations

_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
_PICTURES[0x7F] = 0x2421
_C1 = {code: 0xFFFD for code in range(0x80, 0xA0)}
_LINES = {0x2028: "\n", 0x2029: "\n", 0x85: "\n", 0x0D: None}
# Overrides of direction that outlive their line let one message rewrite how the rest of the screen reads.
_BIDI = {code: None for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_VISIBLE: dict[int, int | str | None] = {**_PICTURES, **_C1, **_LINES, **_BIDI}


def visible(text: str) -> str:
    """`text` without anything that drives a terminal: control characters become their pictures (ESC is ␛)."""
    return text.translate(_VISIBLE)


def encodable(text: str) -> str:
    """`text` with lone surrogates (undecodable bytes of a command line) replaced, so that UTF-8 can carry it."""
    return text.encode("utf-8", "replace").decode("utf-8")
