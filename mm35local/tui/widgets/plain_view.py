"""A growing text letter by letter: no Markdown, no markup, and each growth costs the same however long it is."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from mm35local.tui.plain_text import visible
from mm35local.tui.widgets.lines_view import LinesView
from mm35local.tui.wrapped_text import WrappedText


class PlainView(LinesView):
    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._parts = [visible(text)]
        self._num_wrapped = 0
        self._wrapped = WrappedText(0)

    @property
    def source(self) -> str:
        return "".join(self._parts)

    def add(self, text: str, is_shown: bool = True) -> None:
        """What is not shown is laid out once it is."""
        self._parts.append(visible(text))
        first, height, self._height = self._wrapped.num_closed, self._height, None
        if is_shown:
            self._lay_out()
            self._tell_grown(first, height)

    def _margin(self) -> Strip:
        """A bar: this is no part of the answer."""
        bar = Segment("│", Style(color=self.app.theme_variables["panel"]))
        width = self.styles.padding.left
        return Strip([bar, Segment(" " * (width - 1))], width).apply_style(self._ground or self.rich_style)

    def _forget(self) -> None:
        super()._forget()
        self._parts, self._num_wrapped = [self.source], 0

    def _lay_out(self) -> None:
        if not self._width or (new := "".join(self._parts[self._num_wrapped :])) == "":
            self._height = len(self.laid_out)
            return
        if not self._num_wrapped:
            self._wrapped = WrappedText(self._width)
        self._num_wrapped = len(self._parts)
        del self.laid_out[self._wrapped.num_closed :]
        self._wrapped.add(new)
        self.laid_out += [[Segment(line)] for line in self._wrapped.lines[len(self.laid_out) :]]
        self._height = len(self.laid_out)
