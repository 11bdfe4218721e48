"""What libmtmd makes of a projector file; runs inside `llama_probe`'s process.

Pictures are grey noise of a given size: token counts depend on sizes alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_MAX_IMAGE_TOKENS = 55 * 55
"""A square of 1540 pixels in cells of 28."""
_M_PERTURB, _ALLOCATE_ZEROS = -6, 0xFF


@contextmanager
def _projector(model: Any, path: str) -> Iterator[Any]:
    from llama_cpp import mtmd_cpp

    # libmtmd clears row ends by multiplying what the memory held with 0: NaN stays NaN. Here fresh memory holds zeros.
    ctypes.CDLL(None).mallopt(_M_PERTURB, _ALLOCATE_ZEROS)
    params = mtmd_cpp.mtmd_context_params_default()
    params.use_gpu, params.print_timings, params.warmup = False, False, False
    params.n_threads = 2
    params.image_min_tokens, params.image_max_tokens = 1, _MAX_IMAGE_TOKENS
    context = mtmd_cpp.mtmd_init_from_file(path.encode(), model, params)
    assert context, f"libmtmd cannot load {path}"
    try:
        yield context
    finally:
        mtmd_cpp.mtmd_free(context)


def image_tokens(model: Any, path: str, sizes: list[tuple[int, int]]) -> list[int]:
    """Tokens of a picture of each (width, height), the closing [IMG_END] included."""
    from llama_cpp import mtmd_cpp

    with _projector(model, path) as context:
        assert mtmd_cpp.mtmd_support_vision(context)
        return [
            sum(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk) for chunk in chunks)
            for size in sizes
            for chunks in _tokenized(context, size)
        ]


def image_embeddings(model: Any, path: str, size: tuple[int, int], n_embd: int) -> list[list[float]]:
    """What the decoder gets for a picture of `size`: a row per patch and per [IMG_BREAK]."""
    from llama_cpp import mtmd_cpp

    with _projector(model, path) as context:
        for chunks in _tokenized(context, size):
            [image] = [chunk for chunk in chunks if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == 1]
            assert mtmd_cpp.mtmd_encode_chunk(context, image) == 0
            num_rows = mtmd_cpp.mtmd_input_chunk_get_n_tokens(image)
            flat = np.ctypeslib.as_array(mtmd_cpp.mtmd_get_output_embd(context), (num_rows * n_embd,))
            rows: list[list[float]] = flat.reshape(num_rows, n_embd).tolist()
            return rows
    raise AssertionError("no picture")


def _tokenized(context: Any, size: tuple[int, int]) -> Iterator[list[Any]]:
    """One list of chunks, alive until the next step."""
    from llama_cpp import mtmd_cpp

    width, height = size
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    data = (ctypes.c_uint8 * pixels.size).from_buffer(pixels.data)
    bitmap = mtmd_cpp.mtmd_bitmap_init(width, height, data)
    marker = mtmd_cpp.mtmd_default_marker()
    text = mtmd_cpp.mtmd_input_text(marker, len(marker), False, True)
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    try:
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        assert mtmd_cpp.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
        count = mtmd_cpp.mtmd_input_chunks_size(chunks)
        yield [mtmd_cpp.mtmd_input_chunks_get(chunks, index) for index in range(count)]
    finally:
        mtmd_cpp.mtmd_input_chunks_free(chunks)
        mtmd_cpp.mtmd_bitmap_free(bitmap)
