"""What every widget around a growing text has in common: it is laid out once for each growth."""

from __future__ import annotations

from textual._styles_cache import StylesCache
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget


def forget_removed() -> None:
    """Let go of widgets' painted lines. One of Textual's caches has them in its keys: those of widgets that are gone
    would stay until 1,024 others were painted."""
    StylesCache.get_inner_outer.cache_clear()


class Growing(Widget):
    """Textual lays the screen out again when a widget's virtual size has changed: at each growth a second time, for
    what the first one had found. As a base it stands last: of several, Textual takes the first one's CSS.
    """

    virtual_size = reactive(Size(0, 0), repaint=False)

    def skip_styles_cache(self) -> None:
        """For a widget that paints its lines itself: Textual would note every line that ever grew as one to paint."""
        self._styles_cache.clear()


class Ground(Growing):
    """Behind growing text: without a border it is one line, again and again, where Textual would paint each anew."""

    def render_lines(self, crop: Region) -> list[Strip]:
        if any(kind for kind, _ in self.styles.border):
            return super().render_lines(crop)
        self.skip_styles_cache()
        strip = Strip.blank(crop.width, self.rich_style)
        background = self.background_colors[1]
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, background)
        return [strip] * crop.height
