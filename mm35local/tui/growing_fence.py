"""A code block while it is written: its beginning is laid out once, only a window at its end again and again.

What was laid out is coloured as the lines after the seam could not be known; the whole block is laid out once it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mm35local.tui.markdown_lines import Block, Line, Palette, layout

WINDOW = 40
"""Lines of code laid out at once; up to twice as many are laid out again."""


class GrowingFence:
    """Belongs to one block of one width and palette."""

    def __init__(self) -> None:
        self._kept: list[Line] = []
        self._num_code = 0
        """Lines of code that `_kept` shows."""

    @property
    def is_patched(self) -> bool:
        """Whether it was laid out in more than one piece."""
        return bool(self._kept)

    def lines(self, block: Block, width: int, palette: Palette) -> list[Line]:
        """The block as `layout` would show it, but for colours of what reaches over a seam."""
        code = block.tokens[0].content.split("\n")
        while len(code) - self._num_code > 2 * WINDOW and (end := _seam(code, self._num_code + WINDOW, self._num_code)):
            piece = layout([_with_code(block, code[self._num_code : end])], width, palette)
            self._kept += piece[1:-1]  # without the ground above and below
            self._num_code = end
        top, *rest = layout([_with_code(block, code[self._num_code :])], width, palette)
        return [top, *self._kept, *rest]


def _seam(code: Sequence[str], end: int, start: int) -> int:
    """At or before `end`, behind a line with text: a block does not show the empty ones at its end. 0 for none."""
    return next((place for place in range(end, start, -1) if code[place - 1].strip()), 0)


def _with_code(block: Block, code: Sequence[str]) -> Block:
    (token,) = block.tokens
    return replace(block, tokens=(token.copy(content="\n".join(code)),))
