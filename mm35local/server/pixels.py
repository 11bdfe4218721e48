"""From the bytes of an image file to the pixels that the vision tower takes. Pure, and slow: run in a thread."""

from __future__ import annotations

import io

from PIL import Image as Pillow
from PIL import ImageOps

from mm35local.errors import RequestError
from mm35local.types import Image, ImageGrid

MAX_PIXELS = 64_000_000
"""As large as cameras make them; decoded they take a quarter of a GiB."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow reads more, but some of those call other programs."""


def read_pixels(data: bytes, grid: ImageGrid, field: str) -> Image:
    """Upright as its camera held it, on white where it is transparent, the first frame of several.

    Size and cells are mistral-common's; Pillow's bicubic filter averages where it shrinks, as the model's own image
    processor does. Raises RequestError that names `field`.
    """
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise _refused(f"{file.width} x {file.height} pixels, expected at most {MAX_PIXELS:,}", field)
            upright = ImageOps.exif_transpose(file)
            return _fit(_on_white(upright), grid)
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise _refused(f"more than {MAX_PIXELS:,} pixels", field) from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError) as error:
        raise _refused(f"no image that can be read: expected {', '.join(FORMATS)}", field) from error


def _on_white(image: Pillow.Image) -> Pillow.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would cut off, not scale
        return image.convert("I").point(lambda level: level / 256).convert("L").convert("RGB")
    layer = image.convert("RGBA")
    white = Pillow.new("RGBA", layer.size, "WHITE")
    white.alpha_composite(layer)
    return white.convert("RGB")


def _fit(image: Pillow.Image, grid: ImageGrid) -> Image:
    columns, rows = grid.cells(*image.size)
    size = (columns * grid.cell, rows * grid.cell)
    fitted = image if image.size == size else image.resize(size, Pillow.Resampling.BICUBIC)
    return Image(*size, fitted.tobytes(), rows * (columns + 1) - 1)


def _refused(problem: str, field: str) -> RequestError:
    return RequestError(f"{field}: the image is refused: {problem}", field, "invalid_image", "send another file")
