"""A picture in half blocks: two pixels a cell, in colours every terminal of today has, and through tmux and ssh."""

from __future__ import annotations

import base64
import io

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

_MAX_COLUMNS = 48
_MAX_ROWS = 16
_MAX_PIXELS = 64_000_000
_CANNOT = "(this image cannot be shown here)"


class ImagePreview(Widget):
    """`data` is the file in base64. What cannot be decoded is told in a line, and is still sent."""

    def __init__(self, data: str) -> None:
        super().__init__()
        self._rows = half_blocks(base64.b64decode(data), _MAX_COLUMNS, _MAX_ROWS)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return len(self._rows[0]) if self._rows else len(_CANNOT)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._rows))

    def render_line(self, y: int) -> Strip:
        if not self._rows:
            return Strip([Segment(_CANNOT, self.rich_style)])
        return Strip([Segment("▀", style) for style in self._rows[y]] if y < len(self._rows) else [])


def half_blocks(data: bytes, columns: int, rows: int) -> list[list[Style]]:
    """Rows of cells, each the style of an upper half block; empty if `data` is no image that Pillow opens."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return []
            image.thumbnail((columns, rows * 2))
            pixels = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    canvas = Image.new("RGBA", (pixels.width, pixels.height + pixels.height % 2), "#808080")
    canvas.alpha_composite(pixels)
    flat = canvas.convert("RGB").tobytes()
    width = canvas.width

    def colour(x: int, y: int) -> str:
        start = 3 * (y * width + x)
        return f"#{flat[start : start + 3].hex()}"

    return [
        [Style(color=colour(x, y), bgcolor=colour(x, y + 1)) for x in range(width)] for y in range(0, canvas.height, 2)
    ]
