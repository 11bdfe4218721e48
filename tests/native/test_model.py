"""One real model: loading, tokens, cells, samplers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mm35local.engine.sampler import Sampler, Workspace
from mm35local.errors import LoadFailed
from mm35local.native.batch import Batch
from mm35local.native.context import ABORTED, NO_KV_SLOT, Context
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.types import SamplingParams

N_CTX = 256
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def model(smollm2: Model) -> Model:
    return smollm2


@pytest.fixture
def context(library: Library, model: Model) -> Iterator[Context]:
    context = Context(library, model, n_ctx=N_CTX, num_sequences=4, n_batch=64, num_threads=1, num_batch_threads=1)
    yield context
    context.close()


def generate(context: Context, model: Model, prompt: list[int], params: SamplingParams, num_tokens: int) -> list[int]:
    context.seq_rm(0, 0)
    batch = Batch(64)
    sampler = Sampler(params, Workspace(model.n_vocab), prompt=prompt)
    answer: list[int] = []
    tokens, position = prompt, 0
    for _ in range(num_tokens):
        batch.clear()
        row = batch.add(0, position, tokens, wants_logits=True)
        assert context.decode(batch) == 0
        position += len(tokens)
        tokens = [sampler.sample(context.logits(row))]
        answer += tokens
    return answer


def test_facts_of_the_file(model: Model) -> None:
    assert (model.n_vocab, model.n_ctx_train) == (49152, 8192)
    assert 90e6 < model.num_bytes < 98_362_432
    assert model.eog_ids() == {token_id for token_id in range(100) if model.is_eog(token_id)}
    assert 2 in model.eog_ids()
    assert all(model.device_names())


def test_text_is_never_a_control_token(model: Model) -> None:
    assert not {0, 1, 2} & set(model.tokenize("<|im_start|>user<|im_end|><|endoftext|>"))
    assert model.tokenize("") == []
    assert len(model.tokenize("ab" * 5000)) > 100
    assert model.tokenize("a\ud800b") == model.tokenize("a?b")


def test_the_text_of_a_token(model: Model) -> None:
    pieces = model.token_pieces()
    assert (pieces[1], model.text_of(1)) == (b"<|im_start|>", b"")
    ids = model.tokenize("naïve 🦜")
    assert b"".join(map(model.text_of, ids)).decode() == "naïve 🦜"
    assert all(model.text_of(token_id) == pieces[token_id] for token_id in ids)
    longest = max(range(model.n_vocab), key=lambda token_id: len(pieces[token_id]))
    assert model.text_of(longest) == pieces[longest]


def test_progress_is_told_and_can_stop_the_load(library: Library, smollm2_path: Path) -> None:
    seen: list[float] = []

    def stop_at_half(progress: float) -> bool:
        seen.append(progress)
        return progress < 0.5

    with pytest.raises(LoadFailed):
        Model(library, smollm2_path, on_progress=stop_at_half)
    assert seen == sorted(seen)
    assert 0.5 <= seen[-1] < 1


def test_sequences_in_one_batch_do_not_see_each_other(context: Context, model: Model) -> None:
    prompts = [model.tokenize("The capital of France is"), model.tokenize("Two and two make")]
    alone: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    batch = Batch(64)
    for prompt in prompts:
        context.seq_rm(0, 0)
        batch.clear()
        row = batch.add(0, 0, prompt, wants_logits=True)
        assert context.decode(batch) == 0
        alone.append(np.array(context.logits(row)))
    context.seq_rm(0, 0)
    batch.clear()
    rows = [batch.add(number, 0, prompt, wants_logits=True) for number, prompt in enumerate(prompts)]
    assert context.decode(batch) == 0
    for row, expected in zip(rows, alone, strict=True):
        np.testing.assert_allclose(context.logits(row), expected, atol=0.5)
        assert context.logits(row).argmax() == expected.argmax()


def test_a_trimmed_and_a_copied_sequence_go_on_as_if_computed(context: Context, model: Model) -> None:
    prompt = model.tokenize("One two three four five six seven")
    expected = generate(context, model, prompt, GREEDY, 4)
    assert context.num_positions(0) == len(prompt) + 3
    assert context.seq_rm(0, len(prompt) - 1)
    context.seq_cp(0, 2, len(prompt) - 1)
    batch = Batch(64)
    rows = [batch.add(sequence, len(prompt) - 1, prompt[-1:], wants_logits=True) for sequence in (0, 2)]
    assert context.decode(batch) == 0
    assert [int(context.logits(row).argmax()) for row in rows] == [expected[0], expected[0]]
    assert context.num_positions(2) == len(prompt)
    assert context.num_positions(3) == 0


def test_a_full_cache_says_so_and_changes_nothing(context: Context) -> None:
    batch = Batch(64)
    for start in range(0, N_CTX, 64):
        batch.clear()
        batch.add(0, start, [7] * 64, wants_logits=False)
        assert context.decode(batch) == 0
    batch.clear()
    batch.add(1, 0, [7], wants_logits=True)
    assert context.decode(batch) == NO_KV_SLOT
    context.seq_rm(0, N_CTX - 1)
    assert context.decode(batch) == 0


def test_a_decode_can_be_aborted_and_done_again(context: Context) -> None:
    is_aborting = True
    context.set_abort_callback(lambda: is_aborting)
    batch = Batch(64)
    row = batch.add(0, 0, [5, 6, 7], wants_logits=True)
    assert context.decode(batch, may_abort=True) == ABORTED
    context.seq_rm(0, 0)
    is_aborting = False
    assert context.decode(batch, may_abort=True) == 0
    assert np.isfinite(context.logits(row)).all()


def test_only_a_decode_that_may_abort_asks(context: Context) -> None:
    num_asked = 0

    def should_abort() -> bool:
        nonlocal num_asked
        num_asked += 1
        return False

    context.set_abort_callback(should_abort)
    batch = Batch(64)
    batch.add(0, 0, [5, 6, 7], wants_logits=True)
    assert context.decode(batch) == 0
    assert num_asked == 0
    context.seq_rm(0, 0)
    assert context.decode(batch, may_abort=True) == 0
    num_before = num_asked
    assert num_before > 0
    context.seq_rm(0, 0)
    assert context.decode(batch) == 0
    assert num_asked == num_before


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, seed=1),
        SamplingParams(temperature=0.8, seed=2, top_k=40, top_p=0.9, min_p=0.05),
        SamplingParams(temperature=1.0, seed=-1, repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=0.5),
        SamplingParams(temperature=1.0, seed=0xFFFFFFFF),
    ],
)
def test_a_seed_repeats_its_answer_and_another_does_not(context: Context, model: Model, params: SamplingParams) -> None:
    prompt = model.tokenize("Once upon a time")
    answer = generate(context, model, prompt, params, 12)
    assert generate(context, model, prompt, params, 12) == answer
    assert generate(context, model, prompt, replace(params, seed=77), 12) != answer


def test_without_a_seed_answers_differ(context: Context, model: Model) -> None:
    prompt = model.tokenize("Once upon a time")
    params = SamplingParams(temperature=1.5)
    assert len({tuple(generate(context, model, prompt, params, 12)) for _ in range(3)}) > 1


def test_filters_narrow_the_draw_down_to_the_best(context: Context, model: Model) -> None:
    prompt = model.tokenize("The capital of France is")
    greedy = generate(context, model, prompt, GREEDY, 6)
    for narrow in ({"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}):
        params = replace(SamplingParams(temperature=1, seed=3), **narrow)
        assert generate(context, model, prompt, params, 6) == greedy


def test_penalties_work_at_temperature_zero_too(context: Context, model: Model) -> None:
    prompt = model.tokenize("go go go go go go go go go")
    greedy = generate(context, model, prompt, GREEDY, 8)
    assert len(set(greedy)) < 8, "it repeats itself"
    penalised = generate(context, model, prompt, replace(GREEDY, presence_penalty=5.0, frequency_penalty=5.0), 8)
    assert len(set(penalised)) == 8
    repeated = generate(context, model, prompt, replace(GREEDY, repetition_penalty=3.0), 1)
    assert repeated[0] not in prompt, "the repetition penalty sees the prompt"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bias_forbids_or_forces_a_token(context: Context, model: Model, temperature: float) -> None:
    prompt = model.tokenize("The capital of France is")
    params = SamplingParams(temperature=temperature, top_k=1, seed=1)
    best, second = generate(context, model, prompt, params, 2)
    forbidden = replace(params, logit_bias=((best, -100.0),))
    assert best not in generate(context, model, prompt, forbidden, 2)
    forced = replace(params, logit_bias=((7, 100.0), (second, -100.0)))
    assert generate(context, model, prompt, forced, 3) == [7, 7, 7]
