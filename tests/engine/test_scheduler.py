"""Who gets which tokens: decodes first, prompts in order of arrival, and the youngest gives way."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mm35local.engine.filling import BLOCK
from mm35local.engine.pace import PromptShare
from mm35local.engine.request import Request
from mm35local.engine.scheduler import BURST, HEADROOM, JUST_BEGUN, is_short, num_reserved, pass_over, schedule
from mm35local.types import SamplingParams


def make_request(arrival: int, num_tokens: int, num_computed: int, max_total: int = 1000) -> Request:
    """With all but one token computed it is in the middle of its answer, else its prompt is."""
    tokens = list(range(100, 100 + num_tokens))
    return Request(
        request_id=arrival,
        arrival=arrival,
        params=SamplingParams(),
        tokens=tokens,
        num_prompt_tokens=num_tokens - (num_computed == num_tokens - 1),
        max_total=max_total,
        slot=arrival,
        num_computed=num_computed,
    )


def num_held(requests: Collection[Request]) -> int:
    """Of requests that share nothing."""
    return sum(request.num_computed for request in requests)


def test_decodes_come_before_an_older_prompt() -> None:
    prompt, younger_stream = make_request(1, 100, 0), make_request(2, 11, 10)
    plan = schedule([prompt, younger_stream], n_batch=16, n_ctx=10_000, num_held=num_held)
    assert [(chunk.request_id, chunk.start, len(chunk.token_ids)) for chunk in plan.chunks] == [(2, 10, 1), (1, 0, 15)]
    assert [chunk.wants_token for chunk in plan.chunks] == [True, False]
    assert list(plan.chunks[1].token_ids) == list(range(100, 115))


def test_prompts_are_computed_in_order_of_arrival_within_the_budget() -> None:
    requests = [make_request(3, 10, 0), make_request(1, 10, 4), make_request(2, 10, 0)]
    plan = schedule(requests, n_batch=12, n_ctx=10_000, num_held=num_held)
    assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(1, 6), (2, 6)]


def test_a_token_is_wanted_where_a_prompt_ends_and_nowhere_before() -> None:
    request = make_request(1, 20, 0)
    [first] = schedule([request], n_batch=16, n_ctx=10_000, num_held=num_held).chunks
    assert (len(first.token_ids), first.wants_token) == (16, False)
    request.num_computed = 16
    [last] = schedule([request], n_batch=16, n_ctx=10_000, num_held=num_held).chunks
    assert (last.start, list(last.token_ids), last.wants_token) == (16, [116, 117, 118, 119], True)


def test_a_prompt_whose_end_is_known_takes_no_row_and_waits_for_none() -> None:
    known, stream, prompt = make_request(3, 10, 10), make_stream(1, JUST_BEGUN + 1), make_request(2, 30, 0)
    plan = schedule([stream, prompt, known], n_batch=16, n_ctx=10_000, num_held=num_held)
    given = [(chunk.request_id, len(chunk.token_ids), chunk.wants_token) for chunk in plan.chunks]
    assert given == [(1, 1, True), (3, 0, True), (2, 14, False)]


def test_the_youngest_are_preempted_until_the_rest_fits_and_no_more() -> None:
    requests = [make_request(number, 11, 10) for number in (1, 2, 3, 4)]
    plan = schedule(requests, n_batch=16, n_ctx=43, num_held=num_held)
    assert [request.request_id for request in plan.preempted] == [4]
    assert [chunk.request_id for chunk in plan.chunks] == [1, 2, 3]


def test_what_a_preempted_request_held_counts_as_room() -> None:
    requests = [make_stream(1, JUST_BEGUN + 1), make_request(2, 9, 0), make_stream(3, JUST_BEGUN + 1)]
    plan = schedule(requests, n_batch=16, n_ctx=26, num_held=num_held)
    assert [request.request_id for request in plan.preempted] == [3]
    assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(1, 1), (2, 9)]


def test_the_oldest_is_never_preempted() -> None:
    plan = schedule([make_request(1, 11, 10)], n_batch=16, n_ctx=10, num_held=num_held)
    assert not plan.preempted
    assert len(plan.chunks) == 1


def test_nothing_running_is_an_empty_plan() -> None:
    plan = schedule([], n_batch=16, n_ctx=10, num_held=num_held)
    assert plan.chunks == ()


def test_admission_keeps_room_for_growth_but_not_beyond_the_end() -> None:
    assert num_reserved(make_request(1, 100, 0)) == 100 + HEADROOM
    assert num_reserved(make_request(1, 100, 0, max_total=101)) == 101


def test_a_short_prompt_goes_before_a_long_one_until_that_was_passed_over_for_its_own_length() -> None:
    long = make_request(1, 100, 0)
    steps = 0
    while long.num_computed == 0:
        short = make_request(2 + steps, 9, 0)
        plan = schedule([long, short], n_batch=8, n_ctx=10_000, num_held=num_held)
        pass_over([long, short], plan.chunks)
        long.num_computed += sum(len(chunk.token_ids) for chunk in plan.chunks if chunk.request_id == 1)
        steps += 1
    assert 2 < steps <= 1 + 100 // 8 + 1


def test_short_prompts_and_one_that_was_passed_over_for_its_length_take_turns() -> None:
    long = make_request(1, 20_000, 0, max_total=30_000)
    long.num_passed_over = 20_000
    given = {"long": 0, "short": 0}
    short, num_short, longest_wait = make_request(2, 500, 0), 1, 0
    waited = 0
    while long.num_wanted:
        chunks = schedule([long, short], n_batch=512, n_ctx=100_000, num_held=num_held).chunks
        pass_over([long, short], chunks)
        for chunk in chunks:
            request = long if chunk.request_id == 1 else short
            request.num_computed += len(chunk.token_ids)
            given["long" if request is long else "short"] += len(chunk.token_ids)
        waited += 1
        longest_wait = max(longest_wait, waited)
        if not short.num_wanted:
            num_short, waited = num_short + 1, 0
            short = make_request(1 + num_short, 500, 0)
    assert longest_wait <= 3, "in steps"
    assert given["short"] <= 1.1 * given["long"]


def test_an_answer_that_has_begun_does_not_wait_for_a_long_prompt_before_a_short_one() -> None:
    stream, long, short = make_stream(1), make_request(2, 5_000, 0, max_total=6_000), make_request(3, 20, 0)
    long.num_passed_over = 5_000
    plan = schedule([stream, long, short], n_batch=512, n_ctx=100_000, num_held=num_held)
    assert [chunk.request_id for chunk in plan.chunks][:2] == [1, 2]


def test_streams_leave_a_row_to_prompts_and_prompts_keep_to_their_budget() -> None:
    streams = [make_request(number, 11, 10) for number in range(1, 9)]
    prompt = make_request(9, 50, 0)
    plan = schedule([*streams, prompt], n_batch=8, n_ctx=10_000, num_held=num_held)
    assert [len(chunk.token_ids) for chunk in plan.chunks if chunk.request_id == 9] == [1]
    plan = schedule(
        [*streams[:2], prompt],
        n_batch=40,
        n_ctx=10_000,
        num_held=num_held,
        prompt_share=lambda *_: PromptShare(5),
    )
    assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(1, 1), (2, 1), (9, 5)]


def test_a_prompt_apart_comes_in_blocks_and_begins_with_what_makes_none() -> None:
    share = PromptShare(BLOCK, is_apart=True)
    for num_tokens, parts in ((30, [30]), (64, [64]), (70, [70]), (200, [72, 64, 64])):
        streams, prompt = [make_stream(1, JUST_BEGUN + 1), make_request(2, 5, 5)], make_request(3, num_tokens, 0)
        for part in parts:
            requests = [*streams, prompt]
            plan = schedule(requests, n_batch=256, n_ctx=10_000, num_held=num_held, prompt_share=lambda *_: share)
            assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(2, 0), (3, part)]
            prompt.num_computed += part
        assert plan.chunks[-1].wants_token


def test_prompts_share_a_step_apart_and_no_step_is_longer_than_a_batch() -> None:
    requests = [make_stream(1, JUST_BEGUN + 1), make_request(2, 40, 0), make_request(3, 90, 0)]
    for n_batch, second in ((256, 24 + 2), (64, 24)):
        plan = schedule(
            requests,
            n_batch=n_batch,
            n_ctx=10_000,
            num_held=num_held,
            prompt_share=lambda *_: PromptShare(BLOCK, is_apart=True),
        )
        assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(2, 40), (3, second)]


def test_a_prompt_is_short_by_all_that_it_has_not_by_what_is_left() -> None:
    tokens_and_left = ((30, 30), (300, 300), (300, 20))
    prompts = [make_request(2, num_tokens, num_tokens - num_left) for num_tokens, num_left in tokens_and_left]
    assert [is_short(prompt, 64) for prompt in prompts] == [True, False, False]


def test_the_share_is_asked_for_the_streams_and_the_prompt_in_front() -> None:
    stream, short, long = make_stream(1, JUST_BEGUN + 1), make_request(3, 30, 0), make_request(2, 300, 0)
    asked: list[tuple[Sequence[Request], Request]] = []

    def share(streams: Sequence[Request], prompt: Request) -> PromptShare:
        asked.append((streams, prompt))
        return PromptShare(5)

    schedule([stream, long, short], n_batch=64, n_ctx=10_000, num_held=num_held, prompt_share=share)
    assert asked == [([stream], short)]


def make_stream(arrival: int, num_generated: int = 1) -> Request:
    stream = make_request(arrival, 10 + num_generated, 9 + num_generated)
    stream.num_prompt_tokens = 10
    return stream


def test_the_short_prompts_of_a_burst_come_before_the_second_tokens() -> None:
    first = make_stream(1)
    prompts = [make_request(2, 30, 0), make_request(3, 30, 0)]
    plan = schedule(
        [first, *prompts],
        n_batch=40,
        n_ctx=10_000,
        num_held=num_held,
        prompt_share=lambda *_: PromptShare(40),
    )
    assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(2, 30), (3, 10)]


def test_a_first_token_of_a_burst_goes_out_before_the_next_batch_of_prompts() -> None:
    requests = [make_stream(1), make_stream(2, num_generated=0), make_request(3, 30, 0)]
    plan = schedule(requests, n_batch=40, n_ctx=10_000, num_held=num_held)
    assert [chunk.request_id for chunk in plan.chunks] == [2]


def test_an_answer_that_goes_on_waits_for_no_prompt_and_none_waits_for_long_ones_or_for_ever() -> None:
    soon, long, late = make_request(2, 30, 0), make_request(2, 300, 0), make_request(1 + BURST, 30, 0)
    for stream, prompt in (
        (make_stream(1, num_generated=JUST_BEGUN + 1), soon),
        (make_stream(1), long),
        (make_stream(1), late),
    ):
        plan = schedule(
            [stream, prompt],
            n_batch=40,
            n_ctx=10_000,
            num_held=num_held,
            prompt_share=lambda *_: PromptShare(5),
        )
        assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(1, 1), (prompt.request_id, 5)]


def test_requests_sent_at_once_are_a_burst_though_the_first_answer_has_begun() -> None:
    for num_generated in range(1, JUST_BEGUN + 1):
        first, last = make_stream(1, num_generated), make_request(BURST, 30, 0)
        plan = schedule([first, last], n_batch=40, n_ctx=10_000, num_held=num_held)
        assert [chunk.request_id for chunk in plan.chunks] == [BURST]


def test_the_end_of_a_long_prompt_is_no_short_one() -> None:
    for num_left in (60, 25, 2):
        streams = [make_stream(number) for number in (2, 3)]
        long = make_request(1, 600, 600 - num_left)
        plan = schedule(
            [long, *streams],
            n_batch=40,
            n_ctx=10_000,
            num_held=num_held,
            prompt_share=lambda *_: PromptShare(5),
        )
        given = [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks]
        assert given == [(2, 1), (3, 1), (1, min(5, num_left))]


def test_one_older_answer_keeps_all_of_them_going() -> None:
    requests = [make_stream(1, num_generated=JUST_BEGUN + 1), make_stream(2), make_request(3, 30, 0)]
    plan = schedule(requests, n_batch=40, n_ctx=10_000, num_held=num_held, prompt_share=lambda *_: PromptShare(5))
    assert [(chunk.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [(1, 1), (2, 1), (3, 5)]
