"""A real model's greedy answers, with guesses and without: the same, but for ties that rounding decides.

A step of more rows may round differently (`tests.native.test_row_by_row` holds where it does not), by up to about 1 in
SmolLM2's logits at 4 bits. So where two answers part, both tokens must have been the likeliest two and close to each
other; what follows is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from mm35local.engine.api import EngineConfig, Finished, Submit, Tokens
from mm35local.engine.core import EngineCore
from mm35local.engine.draft_model import DraftModel
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.engine.speculation import Drafter, NgramDrafter, Speculator
from mm35local.native.library import Library
from mm35local.types import Prompt, SamplingParams, TokenLogprobs

N_CTX = 1024
N_BATCH = 128
ROUNDING = 1.0
"""Of logits, and so of their logarithms' differences."""
CODE = """def area(width, height):
    return width * height


def edge(width, height):
    return 2 * (width + height)
"""
EDIT = "{code}\n# {name}: the same once more\n\n{start}"
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, num_logprobs=2)


class Eager(Speculator):
    """Guesses, whatever this machine's steps cost."""

    def record_step(self, num_rows: int, seconds: float) -> None:
        """More rows cost nothing."""
        super().record_step(num_rows, 1.0)


Answer = tuple[list[int], list[TokenLogprobs]]


@pytest.fixture(scope="module")
def backend(library: Library, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaBackend]:
    log = tmp_path_factory.mktemp("log") / "engine.log"
    config = EngineConfig(smollm2_path, log, n_ctx=N_CTX, num_slots=4, n_batch=N_BATCH)
    backend = LlamaBackend(library, config, on_progress=lambda done: True, is_cancelled=lambda request_id: False)
    yield backend
    backend.shutdown()


@pytest.fixture
def drafters(
    request: pytest.FixtureRequest, library: Library, backend: LlamaBackend, smollm2_path: Path
) -> Iterator[list[Drafter]]:
    if request.param == "ngram":
        yield [NgramDrafter()]
        return
    model = DraftModel(library, smollm2_path, backend.model, n_ctx=N_CTX, num_slots=4, n_batch=N_BATCH, gpu=None)
    yield [model]
    model.shutdown()


def answers(backend: LlamaBackend, prompts: list[list[int]], drafters: list[Drafter]) -> tuple[list[Answer], int]:
    """One for each prompt, all asked at once; and how many guesses were right."""
    core = EngineCore(backend, n_ctx=N_CTX, num_slots=4, n_batch=N_BATCH, max_waiting=4, speculator=Eager(drafters))
    for number, prompt in enumerate(prompts):
        core.submit(Submit(number, Prompt(tuple(prompt)), GREEDY))
    found: list[Answer] = [([], []) for _ in prompts]
    num_accepted = 0
    while core.has_work:
        for event in core.step():
            if isinstance(event, Tokens):
                found[event.request_id][0].extend(event.token_ids)
                found[event.request_id][1].extend(event.logprobs)
            elif isinstance(event, Finished):
                num_accepted += event.usage.num_accepted
    core.clear_cache()
    return found, num_accepted


def check_same_but_for_ties(plain: Answer, guessed: Answer) -> None:
    assert len(plain[0]) == len(guessed[0]) == GREEDY.max_tokens
    place = next((i for i in count() if plain[0][i : i + 1] != guessed[0][i : i + 1] or i == len(plain[0])), 0)
    if place == len(plain[0]):
        return
    (likeliest, chance), (second, other_chance) = plain[1][place].top
    assert {plain[0][place], guessed[0][place]} == {likeliest, second}
    assert chance - other_chance < ROUNDING


@pytest.mark.parametrize(
    ("drafters", "num_streams"), [("ngram", 1), ("ngram", 4), ("draft model", 1)], indirect=["drafters"]
)
def test_guesses_change_no_answer(backend: LlamaBackend, drafters: list[Drafter], num_streams: int) -> None:
    start = CODE.splitlines()[0]  # without the line's end, which is one token with what follows it
    texts = [EDIT.format(code=CODE, name=f"copy {number}", start=start) for number in range(num_streams)]
    prompts = [backend.tokenize([text]) for text in texts]
    plain, none_accepted = answers(backend, prompts, [])
    guessed, num_accepted = answers(backend, prompts, drafters)
    assert none_accepted == 0
    assert num_accepted > 6 * num_streams
    for one, other in zip(plain, guessed, strict=True):
        check_same_but_for_ties(one, other)


def test_a_prompt_that_comes_again_is_answered_as_before_and_at_once(backend: LlamaBackend) -> None:
    core = EngineCore(backend, n_ctx=N_CTX, num_slots=4, n_batch=N_BATCH, max_waiting=4)
    prompt = tuple(backend.tokenize([EDIT.format(code=CODE, name="again", start="")]))
    for params in (GREEDY, replace(GREEDY, temperature=0.8, seed=3, logit_bias=((260, -5.0),))):
        core.clear_cache()
        first, again = (ask(core, prompt, params) for _ in range(2))
        assert (first.num_cached, again.num_cached) == (0, len(prompt))
        assert first.token_ids == again.token_ids
        assert first.logprobs == again.logprobs
    core.clear_cache()


@dataclass(frozen=True, slots=True)
class Asked:
    num_cached: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs]


def ask(core: EngineCore, prompt: tuple[int, ...], params: SamplingParams) -> Asked:
    core.submit(Submit(1, Prompt(prompt), params))
    events = core.take_events()
    while core.has_work:
        events += core.step()
    [usage] = [event.usage for event in events if isinstance(event, Finished)]
    tokens = [event for event in events if isinstance(event, Tokens)]
    ids = [token_id for event in tokens for token_id in event.token_ids]
    return Asked(usage.num_cached_tokens, ids, [each for event in tokens for each in event.logprobs])
