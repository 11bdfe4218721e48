"""Images in the books: their ids, their places in a prompt, and which prompts share cells because of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.api import Started, Submit
from mm35local.engine.core import EngineCore
from mm35local.engine.images import place_images, whole_images
from mm35local.engine.request import accept
from mm35local.engine.speculation import NgramDrafter
from mm35local.errors import RequestError
from mm35local.types import Image, ImageGrid, Prompt, SamplingParams
from tests.fakes.backend import FakeBackend, expected_answer

GRID = ImageGrid(cell=2, max_side=20)
IMG_END = 13


def make_image(columns: int, rows: int, seed: int, grid: ImageGrid = GRID) -> Image:
    width, height = columns * grid.cell, rows * grid.cell
    return Image(width, height, random.Random(seed).randbytes(3 * width * height), rows * (columns + 1) - 1)


images_strategy = st.builds(make_image, st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
segment_strategy = st.one_of(st.integers(0, 60), images_strategy)


def prompt_of(segments: list[int | Image]) -> Prompt:
    ids: list[int] = []
    for segment in segments:
        ids += segment.row_ids if isinstance(segment, Image) else (segment,)
    return Prompt((*ids, 1), tuple(segment for segment in segments if isinstance(segment, Image)))


@given(images_strategy, images_strategy)
def test_ids_are_the_content_and_nothing_else(one: Image, other: Image) -> None:
    assert len(one.row_ids) == one.num_rows
    assert all(-(1 << 31) <= row_id < 0 for row_id in one.row_ids)
    assert replace(one).row_ids == one.row_ids
    assert (one.row_ids == other.row_ids) == (one == other)


@given(images_strategy, st.data())
def test_one_other_bit_gives_other_ids_from_the_first_row_on(image: Image, data: st.DataObject) -> None:
    pixels = bytearray(image.rgb)
    pixels[data.draw(st.integers(0, len(pixels) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert replace(image, rgb=bytes(pixels)).row_ids[0] != image.row_ids[0]


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    wide, high = Image(4, 2, bytes(24), 2), Image(2, 4, bytes(24), 3)
    assert set(wide.row_ids).isdisjoint(high.row_ids)


@given(st.lists(segment_strategy, max_size=12))
def test_every_image_is_found_where_it_stands(segments: list[int | Image]) -> None:
    prompt = prompt_of(segments)
    placed = place_images(prompt.token_ids, prompt.images, GRID)
    assert [each.image for each in placed] == [segment for segment in segments if isinstance(segment, Image)]
    for each in placed:
        assert prompt.token_ids[each.start : each.end] == each.image.row_ids
        assert each.digest == each.image.digest


@given(st.lists(segment_strategy, max_size=8), st.integers(0, 300))
def test_a_hit_ends_inside_no_image(segments: list[int | Image], num_common: int) -> None:
    prompt = prompt_of(segments)
    placed = place_images(prompt.token_ids, prompt.images, GRID)
    num_kept = whole_images(num_common, placed)
    assert num_kept <= num_common
    assert not any(each.start < num_kept < each.end for each in placed)
    assert num_kept == num_common or any(each.start == num_kept for each in placed)


IMAGE = make_image(3, 2, 0)


@pytest.mark.parametrize(
    ("ids", "images", "grid"),
    [
        ((1, *IMAGE.row_ids, 2), (IMAGE,), None),
        ((1, *IMAGE.row_ids), (IMAGE,), GRID),
        ((1, *IMAGE.row_ids, 2), (), GRID),
        ((1, *IMAGE.row_ids[:-1], 2), (IMAGE,), GRID),
        ((1, *IMAGE.row_ids[1:], 2), (IMAGE,), GRID),
        ((1, *reversed(IMAGE.row_ids), 2), (IMAGE,), GRID),
        ((1, -5, 2), (IMAGE,), GRID),
        ((1, 2), (replace(IMAGE, width=5),), GRID),
        ((1, 2), (replace(IMAGE, width=0, rgb=b""),), GRID),
        ((1, 2), (replace(IMAGE, rgb=IMAGE.rgb[:-1]),), GRID),
        ((1, 2), (replace(IMAGE, num_rows=6),), GRID),
        ((1, 2), (make_image(11, 1, 0),), GRID),
    ],
)
def test_what_makes_no_sense_is_refused(
    ids: tuple[int, ...], images: tuple[Image, ...], grid: ImageGrid | None
) -> None:
    with pytest.raises(RequestError):
        place_images(ids, images, grid)


class SeeingRun:
    """One core on a fake; requests are answered one after the other."""

    def __init__(self) -> None:
        self.backend = FakeBackend(num_slots=2, capacity=200, n_batch=8)
        self.core = EngineCore(self.backend, n_ctx=200, num_slots=2, n_batch=8, max_waiting=8)
        self.num_asked = 0

    def num_cached(self, prompt: Prompt) -> int:
        """Of `prompt`; it is answered, and as if it had been alone."""
        self.num_asked += 1
        params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
        self.core.submit(Submit(self.num_asked, prompt, params))
        events = self.core.step()
        while self.core.has_work:
            events += self.core.step()
        answer = expected_answer(prompt.token_ids, params, 200)
        cells = [*prompt.token_ids, *answer][:-1]
        assert any(slot[: len(cells)] == cells for slot in self.backend.cells), "the cells are those of this prompt"
        return next(event.num_cached_tokens for event in events if isinstance(event, Started))


def question(image: Image, *words: int) -> Prompt:
    return Prompt((1, 3, *image.row_ids, IMG_END, *words), (image,))


@pytest.fixture
def run() -> SeeingRun:
    return SeeingRun()


def grid_image(seed: int) -> Image:
    return make_image(2, 2, seed, ImageGrid())


def test_the_same_image_is_computed_once(run: SeeingRun) -> None:
    image = grid_image(0)
    assert run.num_cached(question(image, 20, 21)) == 0
    assert run.num_cached(question(image, 30, 31)) == 2 + image.num_rows + 1


def test_another_image_of_the_same_size_shares_only_what_stands_before_it(run: SeeingRun) -> None:
    run.num_cached(question(grid_image(0), 20, 21))
    assert run.num_cached(question(grid_image(1), 20, 21)) <= 2


def test_rows_of_an_image_are_never_guessed() -> None:
    """Their ids are in the tokens, but no token has such an id."""
    image = grid_image(0)
    prompt = Prompt((5, 6, 7, 8, *image.row_ids, IMG_END, 5, 6, 7, 8), (image,))
    command = Submit(1, prompt, SamplingParams())
    request = accept(command, arrival=1, n_ctx=100, n_vocab=64, grid=ImageGrid())
    (draft,) = NgramDrafter().propose([request], [8])
    assert all(token_id >= 0 for token_id in draft.token_ids)
