"""Images through llama.cpp itself: rows, tokens and their order, however a prompt is cut into steps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Pillow

from mm35local.engine.api import Cancel, EngineConfig, Finished, Started, Submit, Tokens
from mm35local.engine.backend import ABORTED, Chunk
from mm35local.engine.core import EngineCore
from mm35local.engine.images import place_images
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.errors import DecodeFailed, LoadFailed
from mm35local.native.batch import Batch, EmbeddingBatch
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.types import FinishReason, Image, Prompt, SamplingParams
from quantize.convert import convert
from quantize.vision import write_mmproj
from tests.pocket.training.case import Case
from tests.pocket.training.encode import Encoder
from tests.pocket.training.families import held_out_cases
from tests.pocket.training.released import RELEASE

INST, INST_END, IMG_END, SETTINGS, SETTINGS_END = 3, 4, 13, 36, 37
GREEDY = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trained miniature and its vision part."""
    out = tmp_path_factory.mktemp("sight")
    convert(RELEASE, out, ["Q8_0"])
    return next(out.glob("*Q8_0.gguf")), write_mmproj(RELEASE, out, "f16").path


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    library = Library(lambda line: None)
    yield library
    library.close()


class Seeing:
    """A backend whose requests can be cancelled by number."""

    def __init__(self, library: Library, files: tuple[Path, Path]) -> None:
        self.cancelled: set[int] = set()
        config = EngineConfig(files[0], Path("unused.log"), 2048, num_slots=4, num_threads=1, mmproj_path=files[1])
        self.backend = LlamaBackend(
            library, config, on_progress=lambda done: True, is_cancelled=self.cancelled.__contains__
        )


@pytest.fixture(scope="module")
def seeing(library: Library, files: tuple[Path, Path]) -> Iterator[Seeing]:
    seeing = Seeing(library, files)
    yield seeing
    seeing.backend.shutdown()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(RELEASE / "tekken.json")


def prompt_of(case: Case, encoder: Encoder) -> Prompt:
    with Pillow.open(io.BytesIO(case.images[0])) as picture:
        columns, rows = picture.width // 28, picture.height // 28
        image = Image(picture.width, picture.height, picture.tobytes(), rows * (columns + 1) - 1)
    settings = (SETTINGS, *encoder.text_ids('{"reasoning_effort": "none"}'), SETTINGS_END)
    question = encoder.text_ids(case.messages[0]["content"][1]["text"])
    return Prompt((1, *settings, INST, *image.row_ids, IMG_END, *question, INST_END), (image,))


def answers(seeing: Seeing, prompts: list[Prompt], n_batch: int) -> list[tuple[int, ...]]:
    """All asked at once."""
    core = EngineCore(seeing.backend, n_ctx=2048, num_slots=4, n_batch=n_batch, max_waiting=100)
    for number, prompt in enumerate(prompts):
        core.submit(Submit(number, prompt, GREEDY))
    told: dict[int, tuple[int, ...]] = dict.fromkeys(range(len(prompts)), ())
    while core.has_work:
        for event in core.step():
            if isinstance(event, Tokens):
                told[event.request_id] += event.token_ids
    for slot in range(4):
        seeing.backend.trim(slot, 0)
    return list(told.values())


@pytest.mark.parametrize("n_batch", [512, 3])
def test_an_image_may_be_cut_anywhere(seeing: Seeing, encoder: Encoder, n_batch: int) -> None:
    """Its rows see only what stands before them, so that steps of a few rows give what one step for all gives."""
    cases = [case for family in ("colour", "position") for case in held_out_cases(family, 2)]
    told = answers(seeing, [prompt_of(case, encoder) for case in cases], n_batch)
    wrong = [case.key for case, ids in zip(cases, told, strict=True) if encoder.reply(list(ids)) != case.expected]
    assert wrong == []


def test_a_cancelled_request_does_not_wait_for_its_image(seeing: Seeing, encoder: Encoder) -> None:
    prompt = prompt_of(held_out_cases("colour", 9)[8], encoder)
    core = EngineCore(seeing.backend, n_ctx=2048, num_slots=4, n_batch=512, max_waiting=100)
    core.submit(Submit(77, prompt, GREEDY))
    seeing.cancelled.add(77)
    events = core.step()
    core.cancel(Cancel(77))
    events += core.take_events()
    seeing.cancelled.clear()
    assert [type(event) for event in events] == [Started, Finished]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.CANCELLED


def test_before_an_image_of_somebody_who_left_the_step_ends(seeing: Seeing, encoder: Encoder) -> None:
    image = Image(28, 28, bytes(range(84)) * 28, 1)
    core = EngineCore(seeing.backend, n_ctx=2048, num_slots=4, n_batch=512, max_waiting=100)
    core.submit(Submit(78, Prompt((1, *image.row_ids, IMG_END), (image,)), GREEDY))
    seeing.cancelled.add(78)
    with pytest.raises(DecodeFailed) as caught:
        seeing.backend.compute([Chunk(78, 0, 0, (1, *image.row_ids), wants_token=False)])
    seeing.cancelled.clear()
    core.cancel_all()
    seeing.backend.trim(0, 0)
    assert caught.value.code == ABORTED


def test_rows_behind_an_image_are_not_filled_for_cells_were_counted_for_all_of_a_step(
    seeing: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(28, 28, bytes(range(84)) * 28, 1)
    seen = (1, *image.row_ids, IMG_END)
    num_rows: list[int] = []
    decode = Context.decode

    def counting(context: Context, batch: Batch | EmbeddingBatch, *, may_abort: bool = False) -> int:
        num_rows.append(batch.struct().n_tokens)
        return decode(context, batch, may_abort=may_abort)

    monkeypatch.setattr(Context, "decode", counting)
    for number, (prompt, expected) in enumerate(((seen, len(seen)), ((1, 2, 3), 16))):
        images = place_images(prompt, (image,) if prompt is seen else (), seeing.backend.image_grid)
        seeing.backend.open(number, GREEDY, prompt, images)
        seeing.backend.compute([Chunk(number, 0, 0, prompt, wants_token=False)], fill_to=16)
        seeing.backend.close(number)
        seeing.backend.trim(0, 0)
        assert sum(num_rows) == expected
        num_rows.clear()


def test_a_file_that_is_no_vision_part_is_refused_in_mtmds_words(library: Library, files: tuple[Path, Path]) -> None:
    with pytest.raises(LoadFailed, match="CLIP"):
        Seeing(library, (files[0], files[0]))
