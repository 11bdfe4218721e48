"""The images of a request, on every wire: each part that shows one becomes the `Image` itself, in its place.

`chat/` stays pure because the fetching and decoding is done here, before it reads the contents.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from mm35local.chat.messages import no_vision
from mm35local.errors import RequestError
from mm35local.server.fetch import Fetcher
from mm35local.server.pixels import read_pixels
from mm35local.types import Image, ImageGrid

MAX_IMAGES = 64
_KINDS = ("image_url", "input_image", "image")
"""OpenAI's on chat and on responses, Anthropic's."""
_INNER = ("content", "output")
"""Where parts hold parts: results of tools, and messages among the items of a response."""
_NUM_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class _Place:
    parts: MutableSequence[Any]
    index: int
    field: str

    @property
    def part(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.parts[self.index]
        return found


class ImageReader:
    """`grid` is what the vision tower takes; None where there is none."""

    def __init__(self, grid: ImageGrid | None, fetcher: Fetcher) -> None:
        self._grid = grid
        self._fetcher = fetcher
        self._turnstile = asyncio.Semaphore(_NUM_AT_ONCE)

    async def read(self, contents: Sequence[tuple[str, object]]) -> None:
        """`contents` are named for errors. Raises RequestError: no vision, too many, or one that cannot be had."""
        places = [place for field, content in contents for place in _places(content, field)]
        if not places:
            return
        if self._grid is None:
            raise no_vision(places[0].field)
        if len(places) > MAX_IMAGES:
            raise RequestError(f"{len(places)} images: expected at most {MAX_IMAGES}", "messages", "too_many_images")
        tasks = [asyncio.create_task(self._image(place, self._grid)) for place in places]
        try:
            images = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        for place, image in zip(places, images, strict=True):
            place.parts[place.index] = image

    async def _image(self, place: _Place, grid: ImageGrid) -> Image:
        async with self._turnstile:
            url = _url(place.part, place.field)
            if url.startswith(("http://", "https://")):
                data = await self._fetcher.fetch(url, place.field)
            else:
                data = await asyncio.to_thread(_inline, url, place.field)
            return await asyncio.to_thread(read_pixels, data, grid, place.field)


def _places(content: object, field: str) -> Iterator[_Place]:
    if not isinstance(content, MutableSequence):
        return
    for i, part in enumerate(content):
        if not isinstance(part, Mapping):
            continue
        if part.get("type") in _KINDS:
            yield _Place(content, i, f"{field}.{i}")
        else:
            for name in _INNER:
                yield from _places(part.get(name), f"{field}.{i}.{name}")


def _url(part: Mapping[str, Any], field: str) -> str:
    """The part's URL; base64 in an object of its own is written as one."""
    source = part.get("source") if part["type"] == "image" else part.get("image_url")
    if isinstance(source, str):
        return source
    if isinstance(source, Mapping):
        if isinstance(url := source.get("url"), str):
            return url
        if source.get("type") == "base64" and isinstance(source.get("data"), str):
            return f"data:;base64,{source['data']}"
    if "file_id" in part or (isinstance(source, Mapping) and "file_id" in source):
        raise _unreadable(field, "this server keeps no files")
    raise _unreadable(field, "expected an image's URL or its base64 data")


def _inline(url: str, field: str) -> bytes:
    """What a data: URL holds; some clients send the base64 alone."""
    head, comma, text = url.partition(",") if url.startswith("data:") else ("data:;base64", ",", url)
    if not comma or not head.lower().endswith(";base64"):
        raise _unreadable(field, "expected data:image/...;base64,...")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unreadable(field, "its base64 is broken, or it is neither a data: nor an http(s): URL") from error


def _unreadable(field: str, problem: str) -> RequestError:
    return RequestError(f"{field}: {problem}", field, "invalid_image_url", "send the image as a data: URL")
