"""Lines of segments, and the painting of them: a line that only moved is not painted again.

A widget of Textual's own paints what it shows anew at each growth; here a growing text costs what is new of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip

from mm35local.tui.widgets.growing import Growing

if TYPE_CHECKING:
    from mm35local.tui.markdown_lines import Line


class LinesView(Growing):
    """A subclass fills `laid_out` and `_height` in `_lay_out`, for `_width`, and forgets more in `_forget`."""

    def __init__(self) -> None:
        super().__init__()
        self.laid_out: list[Line] = []
        """The lines it shows; those of what cannot change any more stay the same objects."""
        self._width = 0
        self._height: int | None = None
        """Lines that it takes; None before they are laid out."""
        self._painted: dict[int, tuple[Line, Strip]] = {}
        """What is on the screen, by the number of the line. A Strip takes ten times the memory of its line."""
        self._ground: Style | None = None

    @property
    def lines(self) -> list[str]:
        """What it shows, without colours; nothing before its width is known."""
        self._lay_out()
        return ["".join(segment.text for segment in line).rstrip() for line in self.laid_out]

    def _lay_out(self) -> None:
        """Once the width is known, make `laid_out` what it should be; by itself it stays as it is."""
        self._height = len(self.laid_out)

    def _tell_grown(self, first: int, height: int | None) -> None:
        """Lines from `first` on are new. Nothing else moves where it is as high as it was before, `height`."""
        if self._height == height:
            self.refresh(Region(0, first, self._width, len(self.laid_out) - first))
        else:
            self.refresh(layout=True)

    def _forget(self) -> None:
        """Begin again from the whole text."""
        self.laid_out = []
        self._height = None
        self._painted.clear()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if width != self._width:
            self._forget()
            self._width = width
        if self._height is None:
            self._lay_out()
        return self._height or 0

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._ground = None
        self._painted.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """A line that only moved is not painted again: that is most of what a stream would cost."""
        self._lay_out()
        self.skip_styles_cache()
        strips = [self._paint(y) for y in crop.line_range]
        if len(self._painted) > 2 * self.screen.size.height:
            self._painted = {y: self._painted[y] for y in crop.line_range if y in self._painted}
        background = self.background_colors[1]
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        left, right = crop.column_span
        return [strip.crop(left, right) for strip in strips]

    def _paint(self, y: int) -> Strip:
        """A line of what is laid out, with the padding beside it."""
        line = self.laid_out[y] if y < len(self.laid_out) else []
        known = self._painted.get(y)
        if known is not None and known[0] == line and known[1].cell_length == self.outer_size.width:
            return known[1]
        content = self._line(y)
        strip = Strip.join([self._margin(), content, Strip.blank(self.styles.padding.right, self._ground)])
        self._painted[y] = line, strip
        return strip

    def _margin(self) -> Strip:
        """What stands left of every line."""
        return Strip.blank(self.styles.padding.left, self._ground)

    def render_line(self, y: int) -> Strip:
        """A line as Textual asks for it where text is marked with the mouse."""
        return self._line(y).apply_offsets(0, y)

    def _line(self, y: int) -> Strip:
        width = self.size.width
        ground = self._ground = self._ground or self.rich_style
        if y >= len(self.laid_out):
            return Strip.blank(width, ground)
        strip = Strip(self.laid_out[y]).apply_style(ground)
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(y)) is not None:
            start, end = span
            end = strip.cell_length if end == -1 else end
            chosen = strip.crop(start, end).apply_style(self.screen.get_component_rich_style("screen--selection"))
            strip = Strip.join([strip.crop(0, start), chosen, strip.crop(end)])
        return strip.adjust_cell_length(width, ground)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self._painted.clear()
        self.refresh()
