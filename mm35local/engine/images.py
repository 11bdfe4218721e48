"""Where the images of a prompt stand.

Invariant: every negative id of a prompt belongs to an image, and every image stands there from its first row to its
last. The last id of a prompt is a token: only tokens are followed by logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm35local.errors import RequestError
from mm35local.types import Image, ImageGrid


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """`image` at the positions start, start + 1, ... of a prompt."""

    start: int
    image: Image
    digest: bytes

    @property
    def end(self) -> int:
        return self.start + self.image.num_rows


def place_images(token_ids: Sequence[int], images: Sequence[Image], grid: ImageGrid | None) -> tuple[PlacedImage, ...]:
    """In order of position. `grid` is None where the model sees no images. Raises RequestError."""
    known = {}
    for image in images:
        _check(image, grid)
        row_ids = image.row_ids
        known[row_ids[0]] = (image, row_ids, image.digest)
    placed: list[PlacedImage] = []
    position = 0
    while position < len(token_ids):
        if token_ids[position] >= 0:
            position += 1
            continue
        found = known.get(token_ids[position])
        if found is None or tuple(token_ids[position : position + found[0].num_rows]) != found[1]:
            raise RequestError(f"token id {token_ids[position]} belongs to no image", "messages", "invalid_token")
        placed.append(PlacedImage(position, found[0], found[2]))
        position = placed[-1].end
    if placed and token_ids[-1] < 0:
        raise RequestError("the prompt ends with an image: a token must follow", "messages", "invalid_token")
    return tuple(placed)


def whole_images(num_tokens: int, images: Sequence[PlacedImage]) -> int:
    """At most `num_tokens`, cut so that it ends inside no image: a cached image counts when all its ids agree."""
    return next((image.start for image in images if image.start < num_tokens < image.end), num_tokens)


def _check(image: Image, grid: ImageGrid | None) -> None:
    if grid is None:
        raise RequestError("this model sees no images", "messages", "no_vision")
    columns, rows = image.width // grid.cell, image.height // grid.cell
    is_whole = image.width == columns * grid.cell > 0 and image.height == rows * grid.cell > 0
    if not is_whole or max(image.width, image.height) > grid.max_side:
        size = f"{image.width} x {image.height}"
        raise RequestError(f"an image of {size}: expected multiples of {grid.cell} up to {grid.max_side}", "messages")
    if len(image.rgb) != 3 * image.width * image.height or image.num_rows != rows * (columns + 1) - 1:
        raise RequestError("an image has too few or too many pixels or rows for its size", "messages")
