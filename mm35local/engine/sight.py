"""Images under way into the KV cells: encoded when their first row is due, kept while there is room.

A step is one llama_decode over tokens. What of a chunk lies before the end of its last image is computed ahead of
that, run by run, because a llama_decode takes tokens or embeddings:

    chunk   t t t | i i i i i | t | i i i | t t
            ahead   ahead      ahead ahead  with the others
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from mm35local.engine.backend import ABORTED, Chunk
from mm35local.engine.images import PlacedImage
from mm35local.errors import DecodeFailed, ImageFailed, LoadFailed
from mm35local.native.batch import Batch, EmbeddingBatch
from mm35local.native.context import Context
from mm35local.native.vision import Float32Array, VisionEncoder
from mm35local.types import Image, ImageGrid

MAX_KEPT_BYTES = 512 << 20
"""Of embeddings. The largest image of the 128B has 151 MB; an image longer in use than kept is encoded again."""


class Sight:
    """Owns the vision tower and what it made of the images of late."""

    def __init__(self, encoder: VisionEncoder, is_cancelled: Callable[[int], bool]) -> None:
        self._encoder = encoder
        self._is_cancelled = is_cancelled
        self._images: dict[int, tuple[PlacedImage, ...]] = {}
        self._kept: OrderedDict[bytes, Float32Array] = OrderedDict()
        self._kept_bytes = 0

    def warm_up(self, grid: ImageGrid, path: str, *, is_largest: bool) -> None:
        """Encode a grey image, the largest one or a small one: what memory it needs is taken now or never.

        Raises LoadFailed.
        """
        side = grid.max_side if is_largest else 2 * grid.cell
        columns, rows = grid.cells(side, side)
        grey = b"\x7f" * (3 * columns * rows * grid.cell**2)
        try:
            self._encoder.encode(Image(columns * grid.cell, rows * grid.cell, grey, rows * (columns + 1) - 1))
        except ValueError as error:
            raise LoadFailed(path, f"a first image failed, perhaps for memory: {error}") from error

    def open(self, request_id: int, images: Sequence[PlacedImage]) -> None:
        if images:
            self._images[request_id] = tuple(images)

    def close(self, request_id: int) -> None:
        self._images.pop(request_id, None)

    def compute_ahead(self, chunk: Chunk, context: Context, batch: Batch) -> Chunk:
        """Compute `chunk` up to the end of its last image; returns the rest, perhaps without any token.

        Raises DecodeFailed: ImageFailed, or ABORTED where the request was cancelled before an image.
        """
        end = chunk.start + len(chunk.token_ids)
        position = chunk.start
        for placed in self._images.get(chunk.request_id, ()):
            first, last = max(placed.start, position), min(placed.end, end)
            if first >= last:
                continue
            if position < first:
                _decode_tokens(chunk, position, first, context, batch)
            rows = self._rows(chunk.request_id, placed)[first - placed.start : last - placed.start]
            _check(context.decode(EmbeddingBatch(chunk.slot, first, rows), may_abort=True))
            position = last
        return replace(chunk, start=position, token_ids=chunk.token_ids[position - chunk.start :])

    def shutdown(self) -> None:
        self._encoder.close()

    def _rows(self, request_id: int, placed: PlacedImage) -> Float32Array:
        rows = self._kept.get(placed.digest)
        if rows is None:
            if self._is_cancelled(request_id):
                raise DecodeFailed(ABORTED)
            try:
                rows = self._encoder.encode(placed.image)
            except ValueError as error:
                raise ImageFailed(str(error)) from error
            self._keep(placed.digest, rows)
        self._kept.move_to_end(placed.digest)
        return rows

    def _keep(self, digest: bytes, rows: Float32Array) -> None:
        self._kept[digest] = rows
        self._kept_bytes += rows.nbytes
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes


def _decode_tokens(chunk: Chunk, first: int, end: int, context: Context, batch: Batch) -> None:
    batch.clear()
    ids = chunk.token_ids[first - chunk.start : end - chunk.start]
    batch.add(chunk.slot, first, ids, wants_logits=False)
    _check(context.decode(batch, may_abort=True))


def _check(code: int) -> None:
    if code:
        raise DecodeFailed(code)
