"""The vision tower and the projector of one mmproj file: pixels in, embeddings of the text model out.

mtmd's own resizing is kept out of the way: images come in sizes that it leaves as they are, with at least one and at
most `max_image_tokens` merged patches.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp

from mm35local.errors import LoadFailed
from mm35local.native.devices import handles
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.types import Image

Float32Array = npt.NDArray[np.float32]


class VisionEncoder:
    """Owner of an `mtmd_context`. Close it before its model."""

    def __init__(
        self, library: Library, path: Path, model: Model, *, gpu: int | None, num_threads: int, max_image_tokens: int
    ) -> None:
        """Read `path` onto the card `gpu` of this machine; None: into RAM.

        Raises LoadFailed, also when the file is another model's (embeddings of another width).
        """
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = gpu is not None
        if gpu is not None:
            params.device = _card(path, gpu)
        params.print_timings = False
        params.n_threads = num_threads
        params.image_min_tokens = 1
        params.image_max_tokens = max_image_tokens
        library.forget_errors()
        library.listen_to(mtmd_cpp.mtmd_log_set)
        self._handle = mtmd_cpp.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not self._handle:
            raise LoadFailed(str(path), library.reason() or "it gave no reason", _HINT)
        if not mtmd_cpp.mtmd_support_vision(self._handle):
            self.close()
            raise LoadFailed(str(path), "it has no vision tower", _HINT)
        self._n_embd = model.n_embd
        self._row_end = _read_row_end(path)
        self._marker = mtmd_cpp.mtmd_default_marker()

    def encode(self, image: Image) -> Float32Array:
        """f32[image.num_rows, n_embd]: row ends, [IMG_BREAK], are among them; [IMG_END] is a token of the text.

        Raises ValueError where mtmd refuses the image, or makes another number of rows of it.
        """
        bitmap = mtmd_cpp.mtmd_bitmap_init(image.width, image.height, _bytes_of(image.rgb))
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        try:
            text = mtmd_cpp.mtmd_input_text(self._marker, len(self._marker), False, True)
            bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
            code = mtmd_cpp.mtmd_tokenize(self._handle, chunks, ctypes.byref(text), bitmaps, 1)
            if code:
                raise ValueError(f"mtmd refused an image of {image.width} x {image.height} (code {code})")
            return self._encode_chunk(self._image_chunk(chunks), image)
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)
            mtmd_cpp.mtmd_bitmap_free(bitmap)

    def _image_chunk(self, chunks: int) -> int:
        """The one chunk that is no text."""
        for i in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, i)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                return int(chunk)
        raise ValueError("mtmd made no embeddings of an image")

    def _encode_chunk(self, chunk: int, image: Image) -> Float32Array:
        num_rows = int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk))
        if num_rows != image.num_rows:
            raise ValueError(f"mtmd makes {num_rows} rows of an image that has {image.num_rows}")
        code = mtmd_cpp.mtmd_encode_chunk(self._handle, chunk)
        if code:
            raise ValueError(f"mtmd could not encode an image of {image.width} x {image.height} (code {code})")
        pointer = mtmd_cpp.mtmd_get_output_embd(self._handle)
        rows: Float32Array = np.ctypeslib.as_array(pointer, (num_rows, self._n_embd)).copy()
        if self._row_end is not None:
            # libmtmd clears them by multiplying what the memory held with 0, which leaves NaN where it held NaN.
            columns = _num_columns(image)
            rows[columns :: columns + 1] = self._row_end
        return rows

    def close(self) -> None:
        if self._handle:
            mtmd_cpp.mtmd_free(self._handle)
            self._handle = None


def _card(path: Path, gpu: int) -> int:
    cards = handles("gpu", "igpu")
    if gpu >= len(cards):
        raise LoadFailed(str(path), f"it was to go on GPU {gpu}, and llama.cpp finds {len(cards)}")
    return cards[gpu]


_HINT = "give the mmproj file that was made with this model, or start without one; engine.log has llama.cpp's own words"


def _bytes_of(rgb: bytes) -> object:
    """A pointer into `rgb`, which mtmd copies."""
    return ctypes.cast(ctypes.c_char_p(rgb), ctypes.POINTER(ctypes.c_uint8))


def _num_columns(image: Image) -> int:
    """Merged patches in a row: of (columns + 1) * rows - 1 embeddings, in the image's aspect ratio."""
    total = image.num_rows + 1
    for rows in range(1, total):
        columns = total // rows - 1
        if total % rows == 0 and columns * image.height == rows * image.width:
            return columns
    raise ValueError(f"{image.num_rows} embeddings cannot be rows of {image.width} x {image.height} pixels")


def _read_row_end(path: Path) -> Float32Array | None:
    """The embedding of [IMG_BREAK], f32[n_embd]; None in a projector without it."""
    from gguf import GGUFReader, dequantize

    for tensor in GGUFReader(path).tensors:
        if tensor.name == "v.token_embd.img_break":
            row: Float32Array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            return row
    return None
