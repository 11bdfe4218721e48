"""Drafts on the real backend: each row is sampled as if it had been computed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mm35local.engine.api import EngineConfig
from mm35local.engine.backend import Chunk
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.native.library import Library
from mm35local.types import Grammar, SamplingParams

PROMPT = tuple(range(2000, 2012))
NUM_TOKENS = 12
GREEDY = SamplingParams(temperature=0)
DRAWN = SamplingParams(temperature=1, seed=3, top_k=40, top_p=0.9)
PENALISED = SamplingParams(temperature=0, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4)
SPELLED = SamplingParams(temperature=1, seed=5, grammar=Grammar('start: ("red" | "green" | "blue" | ", ")+'))


@pytest.fixture(scope="module")
def backend(pocket_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaBackend]:
    [path] = pocket_gguf.glob("*-Q8_0.gguf")
    library = Library(lambda line: None)
    config = EngineConfig(path, tmp_path_factory.mktemp("log") / "engine.log", n_ctx=512, num_slots=2, n_batch=64)
    backend = LlamaBackend(library, config, on_progress=lambda progress: True, is_cancelled=lambda request_id: False)
    yield backend
    backend.shutdown()
    library.close()


def test_what_can_be_read_by_itself(backend: LlamaBackend) -> None:
    ids = backend.tokenize(["a", 3, "\n", "🦜"])
    assert [backend.is_text(token_id) for token_id in ids[:3]] == [True, False, False], "a letter, a control, a space"
    assert not any(map(backend.is_text, ids[3:])), "parts of a character"


def answer(backend: LlamaBackend, params: SamplingParams, drafts_of: dict[int, tuple[int, ...]]) -> list[int]:
    """NUM_TOKENS tokens; `drafts_of[n]` are guessed when n are known."""
    backend.open(1, params, PROMPT, ())
    tokens = list(PROMPT)
    backend.trim(0, 0)
    backend.compute([Chunk(1, 0, 0, tokens[:-1], wants_token=False)])
    start = len(tokens) - 1
    while len(tokens) < len(PROMPT) + NUM_TOKENS:
        drafts = drafts_of.get(len(tokens) - len(PROMPT), ())
        [sampled] = backend.compute([Chunk(1, 0, start, tokens[-1:], wants_token=True, drafts=drafts)])
        assert 1 <= len(sampled) <= len(drafts) + 1
        assert sampled[:-1] == drafts[: len(sampled) - 1]
        tokens += sampled
        start = backend.trim(0, len(tokens) - 1)
    backend.close(1)
    return tokens[len(PROMPT) :][:NUM_TOKENS]


@pytest.mark.parametrize("params", [GREEDY, DRAWN, PENALISED, SPELLED])
def test_right_and_wrong_drafts_give_the_answer_of_none(backend: LlamaBackend, params: SamplingParams) -> None:
    alone = answer(backend, params, {})
    wrong = (alone[5] + 1) % backend.n_vocab
    right = {0: tuple(alone[:5])}
    half = {0: (*alone[:5], wrong, *alone[6:9]), 1: (wrong,), 6: tuple(alone[6:9])}
    assert answer(backend, params, right) == alone
    assert answer(backend, params, half) == alone
    assert answer(backend, params, {n: (wrong, wrong) for n in range(NUM_TOKENS)}) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bias", [0.0, 1e6])
def test_an_end_that_is_ignored_is_never_chosen(backend: LlamaBackend, temperature: float, bias: float) -> None:
    eos = backend.model.eos_id
    wanted = SamplingParams(temperature=temperature, seed=1, logit_bias=((eos, 1e6),))
    assert answer_start(backend, wanted, (eos,)) == (eos,), "and a draft behind it is of no use"
    params = SamplingParams(temperature=temperature, seed=1, ignore_eos=True, logit_bias=((eos, bias),))
    assert eos not in answer(backend, params, {0: (eos, eos)})


def test_drawn_tokens_keep_their_distribution(backend: LlamaBackend) -> None:
    """Chi-square of the second token, where the first was the draft, against one row's own draws: 5 degrees."""
    num_seeds, drafted = 250, Counter[int]()
    [first] = {answer_start(backend, SamplingParams(temperature=0), ())[0]}
    plain = Counter[int]()
    for seed in range(num_seeds):
        params = SamplingParams(temperature=1, seed=seed, top_k=6)
        with_drafts, without = answer_start(backend, params, (first,)), answer_start(backend, params, ())
        assert with_drafts[0] == without[0]
        plain[without[0]] += 1
        if len(with_drafts) == 2:
            drafted[with_drafts[1]] += 1
    num_pairs = sum(drafted.values())
    assert num_pairs == plain[first]
    expected = second_token_chances(backend, first) * num_pairs
    assert set(drafted) <= set(np.flatnonzero(expected).tolist())
    observed = np.array([drafted[int(token_id)] for token_id in np.flatnonzero(expected)])
    wanted = expected[np.flatnonzero(expected)]
    assert float(((observed - wanted) ** 2 / wanted).sum()) < 30.9, "1 in 100,000 lies above"


def answer_start(backend: LlamaBackend, params: SamplingParams, drafts: tuple[int, ...]) -> tuple[int, ...]:
    backend.open(2, params, PROMPT, ())
    if backend._context.num_positions(1) < len(PROMPT) - 1:
        backend.compute([Chunk(2, 1, 0, PROMPT[:-1], wants_token=False)])
    [sampled] = backend.compute([Chunk(2, 1, len(PROMPT) - 1, PROMPT[-1:], wants_token=True, drafts=drafts)])
    backend.trim(1, len(PROMPT) - 1)
    backend.close(2)
    return sampled


def second_token_chances(backend: LlamaBackend, first: int) -> npt.NDArray[np.float64]:
    """softmax over the six likeliest tokens behind PROMPT and `first`, f64[n_vocab]."""
    backend.open(2, GREEDY, PROMPT, ())
    backend.compute([Chunk(2, 1, len(PROMPT) - 1, (PROMPT[-1], first), wants_token=True)])
    logits = backend._context.logits(1).astype(np.float64)
    backend.trim(1, len(PROMPT) - 1)
    backend.close(2)
    chances = np.zeros_like(logits)
    top = np.argsort(logits)[-6:]
    chances[top] = np.exp(logits[top] - logits[top].max())
    chances /= chances.sum()
    return chances
