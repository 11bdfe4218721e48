"""Guessing changes how fast an answer comes, never the answer; and it goes on only where it pays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, count, repeat
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine.api import Finished
from mm35local.engine.backend import Chunk
from mm35local.engine.core import EngineCore
from mm35local.engine.request import Request
from mm35local.engine.speculation import MAX_DRAFT, Acceptance, Draft, NgramDrafter, Speculator
from mm35local.engine.step_costs import NUM_FRESH
from mm35local.types import SamplingParams
from tests.engine.test_core import N_CTX, Run, make_backend, operation_strategy
from tests.fakes.backend import EOG, N_VOCAB, expected_answer, next_token


class Oracle:
    """Knows the fake backend's answers, and is wrong with a given chance for each token."""

    def __init__(self, error_rate: float = 0.0, seed: int = 0) -> None:
        self.error_rate = error_rate
        self._random = Random(seed)
        self.closed: list[int] = []
        self.open: set[int] = set()

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        self.open.update(request.request_id for request in requests)
        return [Draft(self._guess(request, limit)) for request, limit in zip(requests, max_drafts, strict=True)]

    def _guess(self, request: Request, limit: int) -> tuple[int, ...]:
        tokens = list(request.tokens)
        for _ in range(limit):
            token_id = next_token(tokens, request.params, len(tokens) - request.num_prompt_tokens)
            tokens.append((token_id + (self._random.random() < self.error_rate)) % N_VOCAB)
        return tuple(tokens[len(request.tokens) :])

    def close(self, request_id: int) -> None:
        self.closed.append(request_id)
        self.open.discard(request_id)


class FreeRows(Speculator):
    """A step takes a second, whatever its rows: the fake backend's own microseconds say nothing."""

    def record_step(self, num_rows: int, seconds: float) -> None:
        super().record_step(num_rows, 1.0)


def speculating(run: Run, drafter: Oracle | NgramDrafter, max_draft: int = MAX_DRAFT) -> Run:
    """The run, with a core that guesses on the same backend."""
    run.core = EngineCore(
        run.backend,
        n_ctx=N_CTX,
        num_slots=3,
        n_batch=8,
        max_waiting=100,
        speculator=FreeRows((drafter,), max_draft=max_draft),
        clock=accumulate(repeat(1.0)).__next__,
    )
    return run


@settings(max_examples=150, deadline=None)
@given(
    operations=st.lists(operation_strategy, min_size=1, max_size=20),
    error_rate=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    seed=st.integers(0, 1000),
    faults=st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), max_size=20),
    can_trim=st.booleans(),
)
def test_every_answer_is_that_of_one_who_does_not_guess(
    operations: list[tuple[str, object, object]], error_rate: float, seed: int, faults: list[int], can_trim: bool
) -> None:
    run = speculating(Run(make_backend(faults=iter(faults), can_trim=can_trim)), Oracle(error_rate, seed))
    for name, first, second in operations:
        if name == "submit":
            assert isinstance(first, tuple)
            assert isinstance(second, SamplingParams)
            run.submit(first, second)
        elif name == "cancel":
            assert isinstance(first, int)
            run.cancel(first)
        else:
            run.step()
        assert run.core.num_used_cells <= N_CTX
    run.drain()
    run.check()


LONG = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)


def num_steps(run: Run) -> int:
    return len(run.backend.steps)


def test_right_guesses_save_steps_and_are_told() -> None:
    run = speculating(Run(), Oracle())
    request = run.submit((5, 6), LONG)
    run.drain()
    run.check()
    end = run.last(request)
    assert isinstance(end, Finished)
    assert end.usage.num_accepted == end.usage.num_drafted > 40
    assert num_steps(run) < 20
    assert end.usage.num_accepted + num_steps(run) == 60, "each step gives one token of its own"


def test_a_preempted_request_gives_up_its_place_in_a_drafter() -> None:
    """A small model has as many sequences as there are slots."""
    oracle = Oracle()
    run = speculating(Run(), oracle)
    for number in range(2):
        run.submit((5 + number, 6), LONG)
    while run.core.has_work and 2 not in oracle.open:
        run.step()
    run.core._preempt(run.core._running[2])
    assert 2 not in oracle.open
    run.drain()
    run.check()


def test_several_sequences_guess_in_one_step() -> None:
    run = speculating(Run(), Oracle(), max_draft=2)
    for first in (5, 6):
        run.submit((first, 7), LONG)
    run.drain()
    run.check()
    assert any(sum(bool(chunk.drafts) for chunk in step) == 2 for step in run.backend.steps)


def test_wrong_guesses_stop_soon_and_right_ones_start_it_again() -> None:
    """A guess that is not computed is still compared with what comes."""
    drafter = Oracle(error_rate=1.0)
    run = speculating(Run(), drafter)
    run.submit((5, 6), LONG)
    for _ in range(30):
        run.step()
    assert sum(len(chunk.drafts) for step in run.backend.steps[-10:] for chunk in step) == 0
    drafter.error_rate = 0.0
    run.drain()
    run.check()
    assert num_steps(run) < 50


def test_costly_rows_are_not_computed() -> None:
    speculator = Speculator((Oracle(),))
    for _ in range(10):
        for num_rows in range(1, 20):
            speculator._costs.record(num_rows, 0.01 * num_rows)
    request = make_request(LONG)
    [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, room=100)
    assert chunk.drafts == ()
    for _ in range(100):
        for num_rows in range(1, 20):
            speculator._costs.record(num_rows, 0.01 + 0.0001 * num_rows)
    [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, room=100)
    assert len(chunk.drafts) > 3


def test_drafts_that_did_not_keep_their_word_must_promise_more() -> None:
    """Estimates say that they pay; steps keep taking twice as long as those say."""
    speculator = Speculator((Oracle(),))
    for num_rows in range(1, 50):
        speculator.record_step(num_rows, 0.01 + 0.002 * num_rows)
    request = make_request(LONG)

    def num_drafts() -> int:
        [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, 8)
        return len(chunk.drafts)

    assert num_drafts() > 1
    for _ in range(20):
        speculator._bargain.promise(4.0, 0.01)
        speculator._bargain.take(0.03)
        speculator._bargain.bring(4)
        speculator._bargain.settle()
    assert num_drafts() == 0


def make_request(params: SamplingParams, max_total: int = 100) -> Request:
    """Two tokens of a prompt, and the first of an answer."""
    tokens = [5, 6, 7]
    return Request(1, 1, params, tokens, num_prompt_tokens=2, max_total=max_total, slot=0, num_computed=2)


def decode_chunk(request: Request) -> Chunk:
    return Chunk(1, 0, 2, request.tokens[2:], wants_token=True)


@pytest.mark.parametrize(("max_total", "room", "most"), [(100, 2, 2), (5, 100, 1), (4, 100, 0), (100, 0, 0)])
def test_drafts_fit_the_step_and_the_answer(max_total: int, room: int, most: int) -> None:
    speculator = Speculator((Oracle(),))
    speculator.record_step(1, 0.01)
    request = make_request(LONG, max_total)
    [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, room)
    assert len(chunk.drafts) == most


def test_the_first_token_of_an_answer_waits_for_no_guess() -> None:
    speculator = Speculator((Oracle(),))
    speculator.record_step(1, 0.01)
    request = make_request(LONG)
    request.num_prompt_tokens = 3
    assert speculator.add_drafts([decode_chunk(request)], {1: request}, 4)[0].drafts == ()
    request.tokens.append(8)
    assert speculator.add_drafts([decode_chunk(request)], {1: request}, 4)[0].drafts != ()


def test_what_is_drawn_from_kept_logits_waits_for_no_guess() -> None:
    """An answer was given up and begun again where another prompt had ended: nothing is left to compute."""
    speculator = Speculator((Oracle(),))
    speculator.record_step(1, 0.01)
    request = make_request(LONG)
    kept = Chunk(1, 0, len(request.tokens), (), wants_token=True)
    assert speculator.add_drafts([kept], {1: request}, 4) == (kept,)
    assert speculator.add_drafts([decode_chunk(request)], {1: request}, 4)[0].drafts != ()


def test_a_plain_step_is_measured_now_and_then() -> None:
    """Else it would be taken to cost what the smallest step with drafts does, and every draft to be worth it."""
    speculator = Speculator((Oracle(),))
    request = make_request(LONG)
    for _ in range(2):
        [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, 4)
        assert not chunk.drafts
        speculator.record_step(1, 0.01)
        for _ in range(NUM_FRESH):
            [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, 4)
            assert chunk.drafts
            speculator.record_step(1 + len(chunk.drafts), 0.01)
        speculator.record_step(5, 0.01)


def test_where_many_tokens_agree_many_are_guessed_at_once() -> None:
    """Before anything was learnt: 16 of a passage again are followed by more of it, 3 are not so surely."""

    def num_drafts(num_repeated: int) -> int:
        speculator = Speculator((NgramDrafter(),))
        request = make_request(LONG)
        request.tokens[:] = [*range(100, 164), *range(100, 100 + num_repeated)]
        speculator.record_step(1, 0.01)
        speculator.record_step(17, 0.012)
        [chunk] = speculator.add_drafts([decode_chunk(request)], {1: request}, 47)
        return len(chunk.drafts)

    assert num_drafts(20) > 12
    assert 1 <= num_drafts(3) < 12


def test_acceptance_is_learnt() -> None:
    sure, never = Acceptance(0.5, 0.8), Acceptance(0.5, 0.8)
    for _ in range(40):
        sure.learn(8, 8)
        never.learn(8, 0)
    assert sure.chances(8)[-1] > 0.95
    assert never.first < 0.01
    assert never.chances(1) == []
    half = Acceptance(0.5, 0.8)
    for _ in range(40):
        half.learn(4, 1)
    assert half.first > 0.95
    assert half.later < 0.05


def test_one_draft_a_step_tells_whether_more_would_come_true() -> None:
    speculator = Speculator([Guesser(*range(1, 9))])
    for num_rows in range(1, 10):
        speculator.record_step(num_rows, 1.0)
    chunk, request = one_row(1)

    def guess(num_right: int) -> int:
        """So many come true, of those that were computed and the next."""
        speculator.record_step(1, 1.0)
        [step] = speculator.add_drafts([chunk], {1: request}, 16)
        num_confirmed = min(num_right, len(step.drafts))
        speculator.observe(step, (*range(1, num_confirmed + 1), num_confirmed + 1 if num_confirmed < num_right else 60))
        return len(step.drafts)

    assert [guess(num_right=1) for _ in range(60)][-20:] == [1] * 20
    assert [guess(num_right=8) for _ in range(20)][-1] > 4


def test_drawn_tokens_keep_their_distribution() -> None:
    """Chi-square over the fake's tokens but the end, which it draws evenly: 62 degrees, 1 in 100,000 lies above 126."""
    counts = [0] * N_VOCAB
    num_drafted = 0
    run = speculating(Run(make_backend(n_ctx=N_CTX)), Oracle(error_rate=0.3))
    for seed in range(120):
        params = SamplingParams(temperature=1, seed=seed, max_tokens=40, ignore_eos=True)
        request = run.submit((seed % 60 + 1, 2), params)
        run.drain()
        for token_id in run.answer(request):
            counts[token_id] += 1
        end = run.last(request)
        assert isinstance(end, Finished)
        num_drafted += end.usage.num_drafted
    assert counts.pop(EOG) == 0
    expected = sum(counts) / len(counts)
    assert num_drafted > 1000
    assert sum((count - expected) ** 2 / expected for count in counts) < 126


def test_an_end_among_the_guesses_ends_the_answer() -> None:
    params = SamplingParams(temperature=0)
    prompt = next(p for n in range(1, N_VOCAB) if 3 < len(expected_answer(p := (n,), params, N_CTX)) < 20)
    run = speculating(Run(), Oracle())
    request = run.submit(prompt, params)
    run.drain()
    run.check()
    assert EOG not in run.answer(request)


def test_closed_requests_are_forgotten() -> None:
    drafter = Oracle()
    run = speculating(Run(), drafter)
    request = run.submit((5, 6), LONG)
    run.drain()
    assert drafter.closed == [request]


def test_lookup_guesses_from_the_request_s_own_tokens() -> None:
    request = make_request(LONG)
    request.tokens[:] = [1, 2, 3, 4, 5, 9, 1, 2, 3]
    drafter = NgramDrafter()
    [draft] = drafter.propose([request], [2])
    assert draft == Draft((4, 5), strength=3)
    request.tokens += [4, 5, 9, 1]
    [draft] = drafter.propose([request], [3])
    assert draft.token_ids == (2, 3, 4)
    assert draft.strength == 4
    drafter.close(1)
    drafter.close(1)


def test_lookup_guesses_beside_a_change_where_nobody_knows_better() -> None:
    request = make_request(LONG)
    request.tokens[:] = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3]
    alone, beside_a_model = NgramDrafter(), NgramDrafter(beside_changes=False)
    for drafter in (alone, beside_a_model):
        assert drafter.propose([request], [2]) == [Draft((4, 5), strength=3)]
    request.tokens.append(8)
    assert alone.propose([request], [2]) == [Draft((5, 6), strength=1)]
    assert beside_a_model.propose([request], [2]) == [Draft(())]


class Guesser:
    """The same guess for everybody."""

    def __init__(self, *token_ids: int) -> None:
        self._draft = Draft(token_ids)

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        return [self._draft] * len(requests)

    def close(self, request_id: int) -> None:
        """Nothing is kept."""


def one_row(request_id: int) -> tuple[Chunk, Request]:
    tokens = [1, 2, 3]
    params = SamplingParams(temperature=0, max_tokens=60)
    request = Request(request_id, request_id, params, tokens, len(tokens) - 1, 60, slot=request_id, num_computed=2)
    return Chunk(request_id, request_id, 2, [3], True), request


def num_drafts(speculator: Speculator, request_id: int) -> int:
    chunk, request = one_row(request_id)
    return len(speculator.add_drafts([chunk], {request_id: request}, 16)[0].drafts)


def test_a_new_request_starts_with_what_the_others_taught() -> None:
    speculator = Speculator([Guesser(7, 8)])
    for num_rows in range(1, 4):
        speculator.record_step(num_rows, 1.0)
    assert num_drafts(speculator, 1) == 2
    for _ in range(100):
        num_drafts(speculator, 1)
        speculator.observe(one_row(1)[0], (9,))
    speculator.close(1)
    assert num_drafts(speculator, 2) == 0


@pytest.mark.parametrize(("more_seconds", "expected"), [(0.30, 1), (0.40, 0)])
def test_drafts_that_promise_little_are_not_computed(more_seconds: float, expected: int) -> None:
    """At first one in two is taken to come true: 1.5 tokens in 1.3 seconds, or in 1.4."""
    speculator = Speculator([Guesser(7)])
    speculator.record_step(1, 1.0)
    speculator.record_step(2, 1.0 + more_seconds)
    assert num_drafts(speculator, 1) == expected


@pytest.mark.parametrize(("look_seconds", "expected"), [(0.001, 4 + 44 // 8), (0.00001, 48)])
def test_guesses_are_looked_for_less_often_where_looking_is_dear_and_finds_nothing(
    look_seconds: float, expected: int
) -> None:
    """Steps take 10 ms; the clock is read before and after each look."""
    ticks, drafter = count(), Oracle()
    speculator = Speculator([drafter], clock=lambda: next(ticks) * look_seconds)
    num_looks = 0

    def propose(requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        nonlocal num_looks
        num_looks += 1
        return [Draft(()) for _ in requests]

    drafter.propose = propose  # type: ignore[method-assign]
    for _ in range(48):
        assert num_drafts(speculator, 1) == 0
        speculator.record_step(1, 0.01)
    assert num_looks == expected
