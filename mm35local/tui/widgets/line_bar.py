"""The transcript's scroll bar. It moves with every growth: Textual would paint each of its lines anew."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.strip import Strip


class LineBar(ScrollBar):
    """A vertical bar out of a few lines that are there again and again."""

    def render_lines(self, crop: Region) -> list[Strip]:
        self._styles_cache.clear()
        cells = self._cells()
        strips = {cell: self._strip(cell) for cell in set(cells)}
        return [strips[cells[y]] for y in crop.line_range]

    def _cells(self) -> list[Segment]:
        """One a line."""
        bar, (width, height) = self.render(), self.size
        assert isinstance(bar, ScrollBarRender)
        assert isinstance(bar.style, Style)
        assert bar.style.color is not None
        assert bar.style.bgcolor is not None
        place = (height, bar.virtual_size, bar.window_size, bar.position, width)
        return bar.render_bar(*place, back_color=bar.style.bgcolor, bar_color=bar.style.color).segments

    def _strip(self, cell: Segment) -> Strip:
        strip = Strip([cell]).apply_style(self.rich_style)
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, self.background_colors[1])
        return strip
