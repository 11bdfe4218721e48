"""Image files of every kind become pixels in mistral-common's size, or an error that names the field."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from mm35local.errors import RequestError
from mm35local.server.pixels import read_pixels
from mm35local.types import Image, ImageGrid
from tests.fakes.pictures import encoded, png

GRID = ImageGrid()


def read(data: bytes) -> Image:
    return read_pixels(data, GRID, "image")


def pixel(image: Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(np.frombuffer(image.rgb, np.uint8).reshape(image.height, image.width, 3)[y, x].tolist())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_formats(kind: str) -> None:
    image = read(encoded(Pillow.new("RGB", (56, 28), (250, 5, 5)), kind))
    assert (image.width, image.height, image.num_rows) == (56, 28, 2)
    assert np.allclose(pixel(image, 30, 10), (250, 5, 5), atol=6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_sizes_are_whole_cells(width: int, height: int) -> None:
    image = read(png(width, height))
    assert (image.width % 28, image.height % 28) == (0, 0)
    assert 0 <= image.width - width < 28
    assert 0 <= image.height - height < 28
    assert len(image.rgb) == 3 * image.width * image.height


def test_an_image_in_its_size_is_left_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    assert read(encoded(Pillow.fromarray(noise))).rgb == noise.tobytes()


def test_large_images_shrink_to_the_largest_side() -> None:
    image = read(png(4000, 1000))
    assert (image.width, image.height) == (1540, 392)


def test_the_camera_says_what_is_up() -> None:
    picture = Pillow.new("RGB", (56, 28), "red")
    picture.paste("blue", (28, 0, 56, 28))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise makes it upright
    image = read(encoded(picture, "JPEG", exif=exif, quality=95))
    assert (image.width, image.height) == (28, 56)
    assert pixel(image, 14, 5)[0] > 200
    assert pixel(image, 14, 50)[2] > 200


def test_what_is_transparent_is_white() -> None:
    assert pixel(read(png(28, 28, (255, 0, 0, 0), "RGBA")), 3, 3) == (255, 255, 255)
    assert pixel(read(png(28, 28, (0, 0), "LA")), 3, 3) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "level"), [("L", 128), ("I;16", 128 * 256), ("1", 1), ("CMYK", (0, 0, 0, 127))])
def test_other_kinds_of_pixels(mode: str, level: object) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    grey = pixel(read(encoded(Pillow.new(mode, (28, 28), level), kind)), 3, 3)  # type: ignore[arg-type]
    assert np.allclose(grey, 255 if mode == "1" else 128, atol=2)


def test_of_an_animation_the_first_frame() -> None:
    frames = [Pillow.new("RGB", (28, 28), colour) for colour in ("red", "blue")]
    image = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixel(image, 3, 3) == (255, 0, 0)


def bomb(width: int, height: int) -> bytes:
    """A PNG of that size by its header, with no pixels worth the name."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 10_000), (60_000, 60_000), (1_000_000, 1_000_000)])
def test_bombs_are_not_lit(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="image is refused"):
        read(bomb(*size))


@pytest.mark.parametrize("data", [b"", b"hello", png()[:60], bomb(100, 100), b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read(data)
    assert caught.value.field == "image"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of what it skips
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damage_gives_an_image_or_an_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]))
    file = bytearray(encoded(Pillow.new("RGB", (40, 30), "green"), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read(bytes(file))
    except RequestError:
        return
    assert len(image.rgb) == 3 * image.width * image.height
