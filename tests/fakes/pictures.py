"""Image files and the parts that show them on each wire."""

from __future__ import annotations

import base64
import io

from PIL import Image as Pillow

from mm35local.types import Image


def png(width: int = 56, height: int = 28, colour: object = (200, 30, 30), mode: str = "RGB") -> bytes:
    return encoded(Pillow.new(mode, (width, height), colour))  # type: ignore[arg-type]


def encoded(image: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def plain(columns: int, rows: int, level: int = 128) -> Image:
    """One grey, in cells of 28 pixels."""
    width, height = 28 * columns, 28 * rows
    return Image(width, height, bytes([level]) * (3 * width * height), rows * (columns + 1) - 1)
