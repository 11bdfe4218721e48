"""A small model that guesses for a large one; here it is the same model, so that its guesses are right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm35local.engine import draft_model
from mm35local.engine.api import EngineConfig, EngineState, Finished
from mm35local.engine.client import EngineClient
from mm35local.engine.draft_model import DraftModel
from mm35local.engine.measured import TOLERANCE, compare
from mm35local.engine.paying import NUM_TRIAL_STEPS, PayingDrafter
from mm35local.engine.request import Request
from mm35local.engine.speculation import Draft
from mm35local.engine.threads import Threads
from mm35local.errors import LoadFailed
from mm35local.models.draft import draft_bytes, read_draft
from mm35local.native.buffers import BufferLog
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.types import Prompt, SamplingParams
from tests.engine.test_speculation import Oracle

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def target(smollm2: Model) -> Model:
    return smollm2


@pytest.fixture
def drafter(library: Library, target: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[DraftModel]:
    """On one thread: on a busy machine two spend their time waiting for each other."""
    monkeypatch.setattr(draft_model, "default_threads", lambda: Threads(1, 1))
    drafter = DraftModel(library, target.path, target, n_ctx=256, num_slots=2, n_batch=16, gpu=None)
    yield drafter
    drafter.shutdown()


def make_request(number: int, tokens: list[int]) -> Request:
    return Request(number, number, GREEDY, tokens, num_prompt_tokens=len(tokens), max_total=200, slot=number)


def test_guesses_follow_what_is_confirmed_and_what_is_not(target: Model, drafter: DraftModel) -> None:
    counting = make_request(1, target.tokenize("1, 2, 3, 4, 5,"))
    spelling = make_request(2, target.tokenize("a b c d e f g h"))
    assert [len(draft.token_ids) for draft in drafter.propose([counting, spelling], [4, 4])].count(0) >= 1, (
        "16 rows a call: both prompts take more than one"
    )
    drafter.propose([counting, spelling], [4, 4])
    first, second = drafter.propose([counting, spelling], [4, 3])
    assert len(first.token_ids) == 4
    assert len(second.token_ids) <= 3
    counting.tokens += first.token_ids[:2]
    [third] = drafter.propose([counting], [4])
    assert third.token_ids[:2] == first.token_ids[2:]
    counting.tokens += [9999, 9998]
    [after_a_surprise] = drafter.propose([counting], [4])
    fresh = make_request(3, list(counting.tokens))
    drafter.close(2)
    drafts = [drafter.propose([fresh], [4])[0] for _ in range(2)]
    assert drafts[-1] == after_a_surprise


def test_what_it_does_not_see_or_need_gets_no_guess(target: Model, drafter: DraftModel) -> None:
    request = make_request(1, target.tokenize("1, 2, 3, 4, 5,"))
    assert drafter.propose([request], [0]) == [Draft(())]
    request.images = (None,)  # type: ignore[assignment]
    assert drafter.propose([request], [4]) == [Draft(())]
    drafter.close(7)


def test_no_room_is_no_guess_and_no_error(library: Library, pocket_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_model, "MIN_CHANCE", 0.0)
    [path] = pocket_gguf.glob("*-Q8_0.gguf")
    model = Model(library, path)
    drafter = DraftModel(library, path, model, n_ctx=256, num_slots=2, n_batch=64, gpu=None)
    short, long = make_request(1, [5] * 100), make_request(2, [5] * 300)
    guesses = [drafter.propose([short], [4])[0] for _ in range(2)]
    assert [len(guess.token_ids) for guess in guesses] == [0, 4]
    assert all(drafter.propose([long], [4]) == [Draft(())] for _ in range(8))
    drafter.shutdown()
    model.close()


def test_it_takes_the_memory_that_the_plan_keeps_for_it(smollm2_path: Path) -> None:
    buffers = BufferLog()

    def read(line: str) -> None:
        buffers.read(line)

    library = Library(read)
    target = Model(library, smollm2_path)
    buffers.forget()
    drafter = DraftModel(library, smollm2_path, target, n_ctx=1024, num_slots=2, n_batch=128, gpu=None)
    kinds = [(kind, 0) for kind in ("model", "KV", "compute")]
    allocated = sum(measured.allocated_bytes for measured in compare(kinds, buffers.entries))
    assert allocated == pytest.approx(draft_bytes(read_draft(smollm2_path), 1024, 128, 2), rel=TOLERANCE)
    drafter.shutdown()
    target.close()
    library.close()


def test_another_vocabulary_is_refused(library: Library, target: Model, pocket_gguf: Path) -> None:
    [path] = pocket_gguf.glob("*-Q8_0.gguf")
    with pytest.raises(LoadFailed, match="vocabulary"):
        DraftModel(library, path, target, n_ctx=256, num_slots=1, n_batch=16, gpu=None)


async def test_a_worker_asks_the_draft_model_that_it_is_given(smollm2_path: Path, tmp_path: Path) -> None:
    """That the answers stay the same is `test_same_answers`'s business."""
    log = tmp_path / "engine.log"
    client = EngineClient(EngineConfig(smollm2_path, log, n_ctx=256, num_slots=1, draft_path=smollm2_path))
    await client.start()
    while client.status.state is EngineState.LOADING:
        await asyncio.sleep(0.02)
    prompt = Prompt(tuple(await client.tokenize(["1, 2, 3, 4, 5, 6, 7,"])))
    events = [event async for event in client.generate(prompt, GREEDY)]
    await client.aclose()
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.num_accepted > 0


@pytest.mark.parametrize(("seconds_with", "stays_on"), [(0.01, True), (0.05, False)])
def test_a_drafter_is_asked_while_it_pays(seconds_with: float, stays_on: bool) -> None:
    """Three tokens a step with it, one without, which takes 0.01 s."""
    now = [0.0]
    drafter = PayingDrafter(Oracle(), clock=lambda: now[0])
    request = make_request(1, [5, 6, 7])
    asked = []
    for _ in range(10 * NUM_TRIAL_STEPS):
        [draft] = drafter.propose([request], [2])
        asked.append(bool(draft.token_ids))
        now[0] += seconds_with if draft.token_ids else 0.01
        request.tokens += [1, 2, 3] if draft.token_ids else [1]
    assert set(asked[: 2 * NUM_TRIAL_STEPS]) == {True, False}
    assert set(asked[3 * NUM_TRIAL_STEPS :]) == {stays_on}
    drafter.close(1)
