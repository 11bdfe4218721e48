"""What every widget around a growing text has in common: it is laid out once for each growth."""

from __future__ import annotations

from fractions import Fraction

from textual._styles_cache import StylesCache
from textual.box_model import BoxModel
from textual.containers import Vertical
from textual.geometry import Region, Size
from textual.layout import DockArrangeResult
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
    """Behind growing text: without a border it is one line, again and again, where Textual would paint each anew; and
    where it has no colour of its own it leaves the painting to what stands behind it."""

    def render_lines(self, crop: Region) -> list[Strip]:
        if any(kind for kind, _ in self.styles.border):
            return super().render_lines(crop)
        self.skip_styles_cache()
        if self.styles.background.a == 0 and isinstance(self.parent, Widget):
            return []
        strip = Strip.blank(crop.width, self.rich_style)
        background = self.background_colors[1]
        for line_filter in self.get_line_filters():
            strip = strip.apply_filter(line_filter, background)
        return [strip] * crop.height


class Column(Vertical, Ground):
    """What stands in it is as high as it needs to be. Textual would arrange it again, and all that stands beside it,
    whenever the column that it is in itself has grown."""

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        return super().arrange(size.with_height(0), optimal)

    def _get_box_model(
        self,
        container: Size,
        viewport: Size,
        width_fraction: Fraction,
        height_fraction: Fraction,
        constrain_width: bool = False,
        greedy: bool = True,
    ) -> BoxModel:
        flat = container.with_height(0)
        return super()._get_box_model(flat, viewport, width_fraction, Fraction(0), constrain_width, greedy)
