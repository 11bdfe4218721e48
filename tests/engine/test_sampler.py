"""Tokens are drawn from the distribution that llama.cpp's samplers make, each as often as it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.llama_samplers import LlamaSampler
from mm35local.engine.sampler import Sampler, Workspace, _drawn, _drawn_from_blocks, _weights
from mm35local.types import SamplingParams

Float32Array = npt.NDArray[np.float32]

PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.15, 0.7, 1.0, 1.5, 40.0]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.1, 1e-6, 0.0]),
    top_k=st.sampled_from([0, 0, 1, 7, 40, 2000]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    frequency_penalty=st.sampled_from([0.0, 0.4, -0.4]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (4, -100.0)), ((3, 1.0), (3, 2.0))]),
    seed=st.just(1),
)


def some_logits(n_vocab: int, seed: int, spread: float = 3.0) -> Float32Array:
    """A few tokens stand out, as a model's do."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, n_vocab).astype(np.float32)
    logits[rng.integers(0, n_vocab, 8)] += rng.exponential(spread, 8).astype(np.float32) + np.float32(spread)
    return logits


def ours(params: SamplingParams, prompt: Sequence[int] = (), *, n_vocab: int) -> Sampler:
    return Sampler(params, Workspace(n_vocab), prompt=prompt)


def distribution(sampler: Sampler, params: SamplingParams, logits: Float32Array) -> dict[int, float]:
    """What it draws from."""
    changed = sampler._changed(logits)
    if params.temperature == 0:
        return {int(changed.argmax()): 1.0}
    kept = sampler._truncated(changed)
    ids = np.arange(len(logits)) if kept is None else kept
    weights = _weights(changed[ids], params.temperature).astype(np.float64)
    return dict(zip(ids.tolist(), weights / weights.sum(), strict=True))


@given(PARAMS, st.integers(0, 1000), st.sampled_from([300, 1024]), st.lists(st.integers(0, 20), max_size=30))
@settings(max_examples=200)
def test_they_draw_from_what_llama_cpps_samplers_draw_from(
    params: SamplingParams, seed: int, n_vocab: int, came: list[int]
) -> None:
    prompt = came[: len(came) // 2]
    sampler, oracle = ours(params, prompt, n_vocab=n_vocab), LlamaSampler(params, n_vocab, prompt=prompt)
    for token_id in came[len(prompt) :]:
        oracle.accept(token_id)
        for change in sampler._changes:
            change.accept(token_id)
    logits = some_logits(n_vocab, seed)
    found, expected = distribution(sampler, params, logits), oracle.probabilities(logits)
    oracle.close()
    for token_id in found.keys() | expected.keys():
        assert found.get(token_id, 0.0) == pytest.approx(expected.get(token_id, 0.0), abs=2e-4), token_id


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.8, seed=3),
        SamplingParams(temperature=0.8, top_p=0.9, seed=3),
        SamplingParams(temperature=1.2, top_k=12, min_p=0.02, seed=3),
    ],
)
def test_each_is_drawn_as_often_as_it_is_likely(params: SamplingParams) -> None:
    logits, num_draws = some_logits(600, 5), 20_000
    sampler = ours(params, n_vocab=600)
    expected = distribution(sampler, params, logits)
    drawn = Counter(sampler.sample(logits) for _ in range(num_draws))
    assert drawn.keys() <= expected.keys()
    rare = sum(chance for chance in expected.values() if chance * num_draws < 10)
    often = {token_id: chance for token_id, chance in expected.items() if chance * num_draws >= 10}
    cells = [(drawn[token_id], chance * num_draws) for token_id, chance in often.items()]
    if rare * num_draws >= 10:
        cells.append((num_draws - sum(count for count, _ in cells), rare * num_draws))
    chi_square = sum((count - wanted) ** 2 / wanted for count, wanted in cells)
    free = len(cells) - 1
    assert chi_square < free + 4 * (2 * free) ** 0.5 + 4, "four standard deviations"


@given(st.integers(1, 1000), st.integers(0, 99), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_blocks_are_drawn_from_as_all_weights_are(n_vocab: int, seed: int, chance: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    workspace = Workspace(n_vocab)
    workspace.weights[:] = rng.random(n_vocab) * (rng.random(n_vocab) < share)
    workspace.weights[rng.integers(n_vocab)] = 1
    found = _drawn_from_blocks(workspace.blocks, chance)
    up_to = workspace.weights.cumsum(dtype=np.float64)
    assert workspace.weights[found] > 0, "what cannot come never does"
    assert up_to[found] >= chance * up_to[-1] * (1 - 1e-6)
    assert up_to[found] - workspace.weights[found] <= chance * up_to[-1] * (1 + 1e-6)
    plain = _drawn(workspace.weights, chance)
    assert plain == found or abs(up_to[min(plain, found)] - chance * up_to[-1]) < 1e-4


def test_masked_tokens_never_come_and_the_only_one_left_always_does() -> None:
    logits = np.full(1000, -np.inf, dtype=np.float32)
    logits[[7, 900]] = 1.0, 2.0
    for params in (
        SamplingParams(seed=1),
        SamplingParams(seed=1, top_p=0.99),
        SamplingParams(seed=1, top_k=50),
        SamplingParams(seed=1, min_p=0.01, temperature=2.0),
        SamplingParams(seed=1, presence_penalty=1.0),
    ):
        sampler = Sampler(params, Workspace(1000), prompt=(1, 2), never=(900,))
        assert {sampler.sample(logits.copy()) for _ in range(50)} == {7}
        both = ours(params, n_vocab=1000)
        assert {both.sample(logits.copy()) for _ in range(200)} == {7, 900}


def test_the_same_seed_draws_the_same_and_none_draws_its_own() -> None:
    logits = some_logits(5000, 2, spread=0.5)

    def draw(seed: int | None) -> list[int]:
        sampler = ours(SamplingParams(seed=seed, temperature=1.5), n_vocab=5000)
        return [sampler.sample(logits) for _ in range(30)]

    assert draw(5) == draw(5) != draw(6)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("temperature", [1e-30, 1e-5, 100.0])
def test_extreme_temperatures_are_numbers(temperature: float) -> None:
    logits = some_logits(1000, 3) * np.float32(100)
    drawn = ours(SamplingParams(temperature=temperature, seed=1), n_vocab=1000).sample(logits)
    assert temperature > 1 or drawn == logits.argmax()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_ends_nothing(strange: float) -> None:
    logits = some_logits(1000, 3)
    logits[:500] = strange
    for wanted in (SamplingParams(), SamplingParams(min_p=0.1), SamplingParams(top_p=0.9), SamplingParams(top_k=4)):
        for params in (wanted, replace(wanted, presence_penalty=1.0, repetition_penalty=1.2)):
            assert 0 <= ours(params, n_vocab=1000).sample(logits.copy()) < 1000
    assert 0 <= ours(SamplingParams(), n_vocab=1000).sample(np.full(1000, strange, dtype=np.float32)) < 1000


def test_logits_stay_as_they_are_but_for_those_that_never_come() -> None:
    logits = some_logits(1000, 4)
    before = logits.copy()
    params = SamplingParams(repetition_penalty=1.5, logit_bias=((5, 3.0),), top_p=0.9)
    Sampler(params, Workspace(1000), prompt=(1, 2, 2), never=(6,)).sample(logits)
    before[6] = -np.inf
    np.testing.assert_array_equal(logits, before)
