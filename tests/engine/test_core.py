"""The core under every order of events: each request ends once, and answers as if it had been alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, repeat
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine import filling
from mm35local.engine.api import Cancel, CellUse, Failed, Finished, Progress, RequestEvent, Started, Submit, Tokens
from mm35local.engine.backend import ABORTED, NO_CELLS
from mm35local.engine.core import EngineCore
from mm35local.errors import ContextLengthExceeded, DecodeFailed, EngineOverloaded, RequestError
from mm35local.types import FinishReason, Prompt, SamplingParams, TokenLogprobs, Usage
from tests.fakes.backend import EOG, N_VOCAB, FakeBackend, expected_answer

N_CTX = 96
NUM_SLOTS = 3
N_BATCH = 8
BLOCK = 4

params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
    max_tokens=st.none() | st.integers(1, 60),
    ignore_eos=st.booleans(),
)
# few distinct tokens, so that prompts share beginnings with each other and with answers
prompt_strategy = st.lists(st.integers(1, 2), min_size=1, max_size=28).map(tuple)
operation_strategy = st.one_of(
    st.tuples(st.just("submit"), prompt_strategy, params_strategy),
    st.tuples(st.just("cancel"), st.integers(1, 12), st.none()),
    st.tuples(st.just("step"), st.integers(1, 12), st.none()),
)


class Run:
    """One core on a fake, with everything that it told."""

    def __init__(
        self,
        backend: FakeBackend | None = None,
        *,
        n_ctx: int = N_CTX,
        max_waiting: int = 100,
        n_batch: int = N_BATCH,
        random: Random | None = None,
    ) -> None:
        """All steps take equally long, or as long as `random` says, so that some are filled."""
        self.backend = backend or make_backend(n_ctx=n_ctx, n_batch=n_batch)
        num_slots = len(self.backend.cells) // 2
        lengths = iter(random.random, None) if random else repeat(1.0)
        self.core = EngineCore(
            self.backend,
            n_ctx=n_ctx,
            num_slots=num_slots,
            n_batch=n_batch,
            max_waiting=max_waiting,
            clock=accumulate(lengths).__next__,
        )
        self.events: dict[int, list[RequestEvent]] = defaultdict(list)
        self.asked: dict[int, tuple[tuple[int, ...], SamplingParams]] = {}
        self.cancelled: set[int] = set()

    def submit(self, prompt: tuple[int, ...], params: SamplingParams | None = None) -> int:
        request_id = len(self.asked) + 1
        self.asked[request_id] = (prompt, params or SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
        self.core.submit(Submit(request_id, Prompt(prompt), self.asked[request_id][1]))
        return request_id

    def cancel(self, request_id: int) -> None:
        self.cancelled.add(request_id)
        self.core.cancel(Cancel(request_id))

    def step(self) -> None:
        for event in self.core.step():
            self.events[event.request_id].append(event)

    def drain(self, limit: int = 5000) -> None:
        for _ in range(limit):
            self.step()
            if not self.core.has_work:
                break
        assert not self.core.has_work, "the core never came to rest"

    def answer(self, request_id: int) -> list[int]:
        return [t for event in self.events[request_id] if isinstance(event, Tokens) for t in event.token_ids]

    def last(self, request_id: int) -> RequestEvent:
        return self.events[request_id][-1]

    def check(self) -> None:
        """Everything that must hold at rest."""
        for request_id, (prompt, params) in self.asked.items():
            events = self.events[request_id]
            assert [isinstance(event, Finished | Failed) for event in events].count(True) == 1
            if isinstance(events[-1], Finished):
                self.check_finished(request_id, prompt, params, events[-1])
        assert not self.backend.opened
        assert self.core.num_used_cells == self.backend.num_used_cells
        assert self.core.fault() is None

    def check_finished(self, request_id: int, prompt: tuple[int, ...], params: SamplingParams, end: Finished) -> None:
        expected, answer = expected_answer(prompt, params, N_CTX), self.answer(request_id)
        if end.reason is FinishReason.CANCELLED:
            assert request_id in self.cancelled
            assert answer == expected[: len(answer)]
        else:
            assert answer == expected
            is_full = len(answer) == (params.max_tokens or N_CTX - len(prompt))
            assert end.reason is (FinishReason.LENGTH if is_full else FinishReason.STOP)
        assert end.usage.num_prompt_tokens == len(prompt)
        assert end.usage.num_completion_tokens == len(answer)


def make_backend(
    *,
    n_ctx: int = N_CTX,
    num_slots: int = NUM_SLOTS,
    n_batch: int = N_BATCH,
    faults: Iterator[int] | None = None,
    can_trim: bool = True,
) -> FakeBackend:
    return FakeBackend(
        num_slots=num_slots, capacity=n_ctx, n_batch=n_batch, faults=faults, can_trim=can_trim, block=BLOCK
    )


@settings(max_examples=150, deadline=None)
@given(
    operations=st.lists(operation_strategy, min_size=1, max_size=30),
    faults=st.lists(st.sampled_from([0, 0, 0, 0, NO_CELLS, ABORTED]), max_size=40),
    can_trim=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_every_request_ends_once_and_answers_as_if_alone(
    operations: list[tuple[str, object, object]], faults: list[int], can_trim: bool, random: Random
) -> None:
    run = Run(make_backend(faults=iter(faults), can_trim=can_trim), random=random)
    for name, first, second in operations:
        if name == "submit":
            assert isinstance(first, tuple)
            assert isinstance(second, SamplingParams)
            run.submit(first, second)
        elif name == "cancel":
            assert isinstance(first, int)
            run.cancel(first)
        else:
            assert isinstance(first, int)
            for _ in range(first):
                run.step()
        assert run.core.num_used_cells <= N_CTX
        assert run.core.fault() is None
    run.drain()
    run.check()


class Surprising(FakeBackend):
    """One that nobody foresaw: what to do with a prompt of sevens."""

    def open(self, request_id: int, params: SamplingParams, prompt: Sequence[int], images: object = ()) -> None:
        if prompt[0] == 7:
            raise ZeroDivisionError("seven")
        super().open(request_id, params, prompt)


def test_a_surprise_costs_the_request_that_it_is_about_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(Surprising(num_slots=1, capacity=N_CTX, n_batch=N_BATCH))
    first = run.submit((1, 2))
    surprising = run.submit((7, 7))
    run.cancel(first)
    later = run.submit((3, 4))  # the surprising one is started when this one comes
    run.drain()
    failed = run.last(surprising)
    assert isinstance(failed, Failed)
    assert "could not be started: seven" in str(failed.error)
    assert isinstance(run.last(later), Finished)
    run.check()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_finished_sequence_is_continued_by_the_next_turn() -> None:
    run = Run()
    first = run.submit((5, 6, 7, 8))
    run.drain()
    history = (5, 6, 7, 8, *run.answer(first))
    second = run.submit((*history, 9, 9))
    run.drain()
    started = run.events[second][0]
    assert started == Started(second, len(history) + 2, len(history) - 1), "all but the token that was never computed"
    assert run.answer(second) == expected_answer((*history, 9, 9), run.asked[second][1], N_CTX)


def test_a_prompt_that_comes_again_is_answered_without_computing() -> None:
    run = Run()
    run.submit((5, 6, 7, 8))
    run.drain()
    before = run.backend.num_computed
    again = run.submit((5, 6, 7, 8), SamplingParams(temperature=0, max_tokens=1))
    run.drain()
    run.check()
    assert run.events[again][0] == Started(again, 4, 4)
    assert run.backend.num_computed == before
    end = run.last(again)
    assert isinstance(end, Finished)
    assert end.usage == Usage(4, 1, 4)


def test_what_was_no_prompt_is_computed_from_its_last_token_on() -> None:
    run = Run()
    first = run.submit((5, 6, 7, 8), SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    run.drain()
    longer = (5, 6, 7, 8, *run.answer(first)[:3])
    before = run.backend.num_computed
    for part in ((5, 6, 7), longer):
        request = run.submit(part, SamplingParams(temperature=0, max_tokens=1))
        run.drain()
        assert run.events[request][0] == Started(request, len(part), len(part) - 1)
    run.check()
    assert run.backend.num_computed == before + 2


def test_several_answers_to_one_prompt_compute_it_once() -> None:
    run = Run()
    for seed in range(2):
        run.submit((9,) * 40, SamplingParams(temperature=1, seed=seed, max_tokens=1))
    run.drain()
    run.check()
    assert run.backend.num_computed == 40


def test_a_new_chat_shares_its_beginning_and_cuts_nobody() -> None:
    run = Run()
    run.submit(tuple(range(1, 25)), SamplingParams(temperature=0, max_tokens=1))
    run.drain()
    run.submit((1, 40, 41), SamplingParams(temperature=0, max_tokens=1))
    run.drain()
    assert sorted(len(cells) for cells in run.backend.cells if cells) == [3, 24]
    assert run.core.num_used_cells == 26, "they share the first"
    assert run.core.cell_use == CellUse(num_used=26, num_held=0, num_spared=1, num_shared=1)


def test_cached_sequences_give_way_oldest_first() -> None:
    run = Run()
    for first_token in (10, 20):
        run.submit((first_token,) * 30, SamplingParams(temperature=0, max_tokens=1))
        run.drain()
    run.submit((30,) * 60, SamplingParams(temperature=0, max_tokens=1))
    run.drain()
    assert sorted((cells[0], len(cells)) for cells in run.backend.cells if cells) == [(20, 30), (30, 60)]


def test_a_beginning_that_many_share_is_computed_once() -> None:
    num_slots, prefix = 16, tuple(n % 50 + 1 for n in range(1500))
    backend = FakeBackend(num_slots=num_slots, capacity=3000, n_batch=N_BATCH)
    run = Run(backend, n_ctx=3000)
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    requests = [run.submit((*prefix, 55, number), params) for number in range(num_slots)]
    run.drain()
    assert backend.num_computed <= 1500 + num_slots * 4
    for number, request in enumerate(requests):
        assert run.answer(request) == expected_answer((*prefix, 55, number), params, 3000)
    assert run.core.fault() is None


def test_a_request_that_waits_for_a_beginning_lets_others_pass_and_outlives_its_end() -> None:
    run = Run()
    first = run.submit((1,) * 50)
    same = run.submit((1,) * 60)
    other = run.submit((2, 3))
    run.step()
    assert [bool(run.events[request]) for request in (first, same, other)] == [True, False, True]
    run.cancel(first)
    run.drain()
    run.check()
    started = run.events[same][0]
    assert isinstance(started, Started)
    assert started.num_cached_tokens == N_BATCH - 2, "what one step left, after the short one"


def test_an_edited_message_forks_and_both_pasts_stay() -> None:
    run = Run()
    run.submit((*range(1, 30), 40, 40, 40))
    run.drain()
    edited = run.submit((*range(1, 30), 41, 41))
    run.drain()
    again = run.submit((*range(1, 30), 40, 40, 40, 42))
    run.drain()
    assert run.events[edited][0] == Started(edited, 31, 29)
    assert run.events[again][0] == Started(again, 33, 32)


def test_the_books_hold_after_ten_thousand_random_operations() -> None:
    random = Random(6)
    run = Run(make_backend(num_slots=4), random=random)
    for _ in range(10_000):
        what = random.random()
        if what < 0.15:
            tokens = tuple(random.choice((1, 2)) for _ in range(random.randint(1, 40)))
            run.submit(tokens, SamplingParams(temperature=0, max_tokens=random.randint(1, 40)))
        elif what < 0.2 and run.asked:
            run.cancel(random.randint(max(1, len(run.asked) - 8), len(run.asked)))
        else:
            run.step()
        assert run.core.fault() is None
        assert run.core.num_used_cells == run.backend.num_used_cells
    assert any(run.backend.fills)
    run.drain()
    run.check()


def test_a_fault_in_the_books_is_seen_and_cleared() -> None:
    run = Run()
    run.submit((1, 2, 3))
    run.drain()
    assert run.core.fault() is None
    del run.backend.cells[0][1:]
    del run.backend.cells[1][1:]
    assert "is booked with" in (run.core.fault() or "")
    run.core.clear_cache()
    assert run.core.fault() is None
    assert run.core.num_used_cells == 0


def test_streams_go_on_beside_a_long_prompt() -> None:
    run = Run()
    stream = run.submit((5,), SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))
    run.step()
    run.step()  # what the stream takes alone is known by two steps
    prompt = run.submit((1,) * 24, SamplingParams(temperature=0, max_tokens=1))
    for num_steps in range(1, 4):
        run.step()
        assert len(run.answer(stream)) == 2 + num_steps
    assert [event for event in run.events[prompt] if isinstance(event, Progress)] == [
        Progress(prompt, 7, 24),
        Progress(prompt, 14, 24),
        Progress(prompt, 21, 24),
    ]
    run.drain()
    run.check()


def test_what_a_first_step_will_take_is_known_while_there_are_prompts_alone() -> None:
    run = Run(n_ctx=300, n_batch=filling.BLOCK)
    assert run.core.first_step_seconds == math.inf, "there is nothing to do"
    run.submit((1,) * filling.BLOCK)
    assert run.core.first_step_seconds == math.inf, "nothing was measured"
    run.drain()
    run.submit((2,) * filling.BLOCK)
    assert run.core.first_step_seconds == pytest.approx(1.0), "as long as the one before"
    run.step()
    assert run.core.first_step_seconds == math.inf, "it streams"


def test_steps_are_steady_beside_a_long_prompt_and_not_where_short_ones_take_turns() -> None:
    run = Run()
    steady = [run.core.is_steady]
    run.submit((1, 2, 3), SamplingParams(temperature=0, max_tokens=50, ignore_eos=True))
    steady.append(run.core.is_steady)
    run.step()
    steady.append(run.core.is_steady)
    run.submit(tuple(range(10, 12 + N_BATCH)))
    steady.append(run.core.is_steady)
    run.submit((4, 5, 6))
    steady.append(run.core.is_steady)
    assert steady == [False, False, True, True, False]


def test_a_short_prompt_has_no_progress() -> None:
    run = Run()
    request = run.submit((1,) * N_BATCH)
    run.drain()
    assert not [event for event in run.events[request] if isinstance(event, Progress)]


def test_requests_that_outgrow_the_cells_are_computed_again_not_failed() -> None:
    run = Run(make_backend(num_slots=2), n_ctx=N_CTX)
    params = SamplingParams(temperature=1, seed=7, max_tokens=N_CTX - 4, ignore_eos=True)
    both = [run.submit((1, 2, 3), params), run.submit((4, 5), params)]
    run.drain()
    run.check()
    assert [len(run.answer(request)) for request in both] == [N_CTX - 4, N_CTX - 4]
    assert run.backend.num_computed > 2 * N_CTX, "the younger one was preempted"
    assert all([type(event) for event in run.events[request]].count(Started) == 1 for request in both)


@pytest.mark.parametrize(
    ("prompt", "params", "error"),
    [
        ((), SamplingParams(), RequestError),
        ((1, N_VOCAB), SamplingParams(), RequestError),
        ((-1,), SamplingParams(), RequestError),
        ((1,) * N_CTX, SamplingParams(), ContextLengthExceeded),
        ((1,) * (N_CTX - 8), SamplingParams(max_tokens=9), ContextLengthExceeded),
        ((1,), SamplingParams(max_tokens=0), RequestError),
        ((1,), SamplingParams(temperature=float("nan")), RequestError),
        ((1,), SamplingParams(top_p=1.5), RequestError),
        ((1,), SamplingParams(repetition_penalty=0.0), RequestError),
        ((1,), SamplingParams(presence_penalty=float("inf")), RequestError),
        ((1,), SamplingParams(logit_bias=((N_VOCAB, 1.0),)), RequestError),
        ((1,), SamplingParams(logit_bias=((1, float("nan")),)), RequestError),
        ((1,), SamplingParams(num_logprobs=21), RequestError),
    ],
)
def test_hopeless_requests_are_refused_alone(
    prompt: tuple[int, ...], params: SamplingParams, error: type[Exception]
) -> None:
    run = Run()
    good = run.submit((3, 4))
    bad = run.submit(prompt, params)
    run.drain()
    assert len(run.events[bad]) == 1
    failed = run.last(bad)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, error)
    assert isinstance(run.last(good), Finished)


def test_the_context_may_be_used_to_the_last_token() -> None:
    run = Run()
    exact = run.submit((1,) * (N_CTX - 1), SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    open_ended = run.submit((2,), SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))
    run.drain()
    run.check()
    assert len(run.answer(exact)) == 1
    assert len(run.answer(open_ended)) == N_CTX - 1


def test_one_more_than_the_queue_holds_is_refused() -> None:
    run = Run(max_waiting=2)
    requests = [run.submit((9, number)) for number in range(1, NUM_SLOTS + 4)]
    run.drain()
    failed = run.last(requests[-1])
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EngineOverloaded)
    assert all(isinstance(run.last(request), Finished) for request in requests[:-1])


def test_cancelling_frees_the_slot_at_once_and_keeps_what_was_computed() -> None:
    run = Run(make_backend(num_slots=1))
    running = run.submit((1,) * 20)
    waiting = run.submit((1,) * 20)
    run.step()
    run.cancel(running)
    run.step()
    assert isinstance(run.last(running), Finished)
    assert run.events[waiting][0] == Started(waiting, 20, N_BATCH)
    run.cancel(waiting)
    run.cancel(waiting)
    run.cancel(99)
    run.drain()
    run.check()


def test_cancel_all_ends_everything() -> None:
    run = Run()
    for number in range(1, 6):
        run.cancelled.add(run.submit((number,)))
    run.step()
    run.core.cancel_all()
    run.drain(limit=1)
    run.check()


def test_a_decode_error_fails_only_whom_it_concerns() -> None:
    backend = FakeBackend(
        num_slots=NUM_SLOTS, capacity=N_CTX, n_batch=N_BATCH, is_poisoned=lambda chunk: 13 in chunk.token_ids
    )
    run = Run(backend)
    good, bad, other = run.submit((1, 2)), run.submit((13,)), run.submit((3, 4))
    run.drain()
    run.check()
    failed = run.last(bad)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, DecodeFailed)
    assert failed.error.code == -3
    assert isinstance(run.last(good), Finished)
    assert isinstance(run.last(other), Finished)


def test_an_interrupted_step_is_computed_again() -> None:
    run = Run(make_backend(faults=iter([ABORTED])))
    run.submit((1, 2))
    run.submit((3, 4))
    run.step()
    assert run.backend.num_computed == 0
    assert not any(run.backend.cells)
    run.drain()
    run.check()


def test_a_backend_with_fewer_cells_than_the_books_say_still_serves_all() -> None:
    backend = FakeBackend(num_slots=NUM_SLOTS, capacity=N_CTX, n_batch=N_BATCH, num_real_cells=30)
    run = Run(backend)
    params = SamplingParams(temperature=1, seed=1, max_tokens=20, ignore_eos=True)
    requests = [run.submit((number, 2, 3), params) for number in (4, 5, 6)]
    run.drain()
    run.check()
    assert all(isinstance(run.last(request), Finished) for request in requests)


def test_no_cells_for_a_lone_request_fails_it_and_the_engine_goes_on() -> None:
    run = Run(make_backend(faults=iter([NO_CELLS])))
    lone = run.submit((1, 2))
    run.drain()
    failed = run.last(lone)
    assert isinstance(failed, Failed)
    assert run.submit((1, 2)) == 2
    run.drain()
    assert isinstance(run.last(2), Finished)


def test_the_end_of_generation_token_is_not_part_of_the_answer() -> None:
    prompt = next(
        p for n in range(1, N_VOCAB) if 0 < len(expected_answer(p := (n,), SamplingParams(temperature=0), N_CTX)) < 20
    )
    run = Run()
    request = run.submit(prompt, SamplingParams(temperature=0))
    run.drain()
    end = run.last(request)
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.STOP
    assert EOG not in run.answer(request)


def test_logprobs_come_with_their_tokens_where_asked_for() -> None:
    run = Run()
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
    asking, other = run.submit((1, 2), replace(params, num_logprobs=3)), run.submit((1, 2), params)
    run.drain()
    told = [event.logprobs for event in run.events[asking] if isinstance(event, Tokens)]
    assert told == [(TokenLogprobs(-float(number)),) for number in range(5)]
    assert all(event.logprobs == () for event in run.events[other] if isinstance(event, Tokens))
