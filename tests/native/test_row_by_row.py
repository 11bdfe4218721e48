"""Rows of one decode against the same rows one at a time: on a CPU each is computed as if it were alone, bit for bit.

So drafts cannot change a greedy answer. Matrix products keep this where llama.cpp is built as our Makefile does; the
flash kernel keeps it for quantised cells (those of f16 it cuts in pieces for a single row, from 512 cells on).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from llama_cpp import llama_cpp

from mm35local.native.batch import Batch
from mm35local.native.context import CellFormat, Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing

DEPTH = 600
"""Tokens before: past the 512 cells from which one row of f16 has a kernel of its own."""
NUM_ROWS = 12
PRODUCTS, QUANTISED = CellFormat("f16", flash_attention=False), CellFormat("q8_0")


@pytest.fixture(scope="module")
def model(library: Library, smollm2_path: Path) -> Iterator[Model]:
    model = Model(library, smollm2_path, Placing())
    yield model
    model.close()


def decode(context: Context, token_ids: list[int], position: int) -> list[npt.NDArray[np.float32]]:
    """The logits of every row."""
    batch = Batch(len(token_ids))
    batch.add_drafts(0, position, token_ids)
    assert context.decode(batch) == 0
    return [context.logits(row).copy() for row in range(len(token_ids))]


def rows_of(library: Library, model: Model, cells: CellFormat, at_once: int) -> list[npt.NDArray[np.float32]]:
    """The logits of NUM_ROWS rows after DEPTH tokens, `at_once` of them in a decode."""
    context = Context(
        library, model, n_ctx=1024, num_sequences=1, n_batch=1024, num_threads=2, num_batch_threads=2, cells=cells
    )
    drawn = [int(token) for token in np.random.default_rng(3).integers(1000, 40000, DEPTH + NUM_ROWS)]
    batch = Batch(DEPTH)
    batch.add(0, 0, drawn[:DEPTH], wants_logits=False)
    assert context.decode(batch) == 0
    starts = range(DEPTH, DEPTH + NUM_ROWS, at_once)
    found = [logits for start in starts for logits in decode(context, drawn[start : start + at_once], start)]
    context.close()
    return found


@pytest.mark.parametrize("at_once", [2, 3, NUM_ROWS])
@pytest.mark.parametrize("cells", [PRODUCTS, QUANTISED], ids=["products", "q8_0"])
def test_a_row_is_computed_as_if_it_were_alone(library: Library, model: Model, cells: CellFormat, at_once: int) -> None:
    if cells is PRODUCTS and b"LLAMAFILE" in llama_cpp.llama_print_system_info():
        pytest.skip("this llama.cpp has llamafile's products, which add up in another order from two rows on")
    alone, together = rows_of(library, model, cells, 1), rows_of(library, model, cells, at_once)
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
