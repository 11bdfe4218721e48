"""Tokens of quick steps leave together, in order, and nothing else waits for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.api import CellUse, Finished, Progress, Started, Tokens, WorkerEvent
from mm35local.engine.outbox import FIRST_TOKENS, HOLD_SECONDS, Outbox
from mm35local.types import FinishReason, TokenLogprobs, Usage

USAGE = Usage(3, 0, 1)
NO_TEXT = 999
"""Of all ids the only one that cannot be read by itself."""


class Mouth:
    """An outbox with a clock, and what has left it, when."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[float, Sequence[WorkerEvent]]] = []
        self.outbox = Outbox(
            lambda events: self.sent.append((self.now, events)), lambda: self.now, is_text=lambda id_: id_ != NO_TEXT
        )

    def step(self, seconds: float, *events: WorkerEvent, may_hold: bool = True) -> None:
        self.now += seconds
        self.outbox.put(events, may_hold=may_hold)


def begun(*request_ids: int) -> Mouth:
    mouth = Mouth()
    mouth.step(1.0, *(Tokens(request_id, (0,)) for request_id in request_ids))
    mouth.sent.clear()
    return mouth


def test_tokens_of_quick_steps_leave_as_one_event_in_time() -> None:
    mouth = begun(1)
    for number in range(8):
        mouth.step(0.19 * HOLD_SECONDS, Tokens(1, (number,), (TokenLogprobs(-number),), 1, number % 2))
    scores = [TokenLogprobs(-n) for n in range(8)]
    assert [list(events) for _, events in mouth.sent] == [[Tokens(1, (0, 1, 2, 3, 4), tuple(scores[:5]), 5, 2)]]
    assert mouth.sent[0][0] < 101.0001 + HOLD_SECONDS
    mouth.outbox.flush()
    assert mouth.sent[1][1] == [Tokens(1, (5, 6, 7), tuple(scores[5:]), 3, 2)]
    mouth.outbox.flush()
    assert len(mouth.sent) == 2, "nothing is left"


def test_steps_that_are_not_quick_are_told_one_by_one() -> None:
    mouth = begun(1)
    for number in range(5):
        mouth.step(0.6 * HOLD_SECONDS, Tokens(1, (number,)))
    assert [list(events) for _, events in mouth.sent] == [[Tokens(1, (number,))] for number in range(5)]


def test_first_tokens_an_end_and_what_comes_before_another_kind_of_step_leave_at_once() -> None:
    mouth = begun(1)
    mouth.step(0.001, Tokens(1, (1,)))
    mouth.step(0.001, Tokens(1, (2,)), Tokens(2, (1,)))
    assert mouth.sent.pop()[1] == [Tokens(1, (1, 2)), Tokens(2, (1,))]
    mouth.step(0.001, Tokens(1, (3,)), Tokens(2, (8,)))
    end = Finished(1, FinishReason.STOP, USAGE)
    mouth.step(0.001, end, Tokens(2, (9,)), CellUse())
    assert mouth.sent.pop()[1] == [Tokens(1, (3,), is_last=True), Tokens(2, (8, 9)), end, CellUse()]
    mouth.step(0.001, Tokens(2, (10,)), may_hold=False)
    assert mouth.sent.pop()[1] == [Tokens(2, (10,))]
    mouth.step(0.001, Started(1, 3, 0), Tokens(1, (1,)))
    assert mouth.sent.pop()[1] == [Started(1, 3, 0), Tokens(1, (1,))], "a number that comes again begins again"
    assert not mouth.sent


def test_a_start_leaves_with_the_first_token_where_that_comes_at_once() -> None:
    mouth = Mouth()
    mouth.step(1.0, Started(1, 3, 0), CellUse())
    assert not mouth.sent
    mouth.step(0.01, Tokens(1, (7,)))
    assert [list(events) for _, events in mouth.sent] == [[Started(1, 3, 0), CellUse(), Tokens(1, (7,))]]
    mouth.step(0.01, CellUse(), Tokens(1, (8,)), Started(9, 3, 0), Tokens(9, (7,)), may_hold=False)
    assert list(mouth.sent.pop()[1]) == [Started(9, 3, 0), Tokens(1, (8,)), Tokens(9, (7,)), CellUse()]
    mouth.step(1.0, Started(2, 3, 0), CellUse())
    mouth.outbox.flush()
    assert mouth.sent.pop()[1] == [Started(2, 3, 0), CellUse()], "more has come to be handled"
    mouth.step(1.0, Started(3, 3, 0), CellUse(), may_hold=False)
    assert mouth.sent.pop()[1] == [Started(3, 3, 0), CellUse()], "its first step takes long"
    mouth.step(1.0, Started(4, 3, 0), Finished(5, FinishReason.STOP, USAGE))
    assert mouth.sent.pop()[1] == [Started(4, 3, 0), Finished(5, FinishReason.STOP, USAGE)], "an end never waits"


def test_the_first_text_leaves_at_once_and_what_is_none_with_it() -> None:
    mouth = begun(9)
    mouth.step(0.001, Started(1, 3, 0), CellUse())
    for _ in range(2):
        mouth.step(0.001, Tokens(1, (NO_TEXT,)))
        assert not mouth.sent, "nobody could read it"
    mouth.step(0.001, Tokens(1, (7,)))
    assert list(mouth.sent.pop()[1]) == [Started(1, 3, 0), CellUse(), Tokens(1, (NO_TEXT, NO_TEXT, 7))]
    mouth.step(0.001, Tokens(1, (8,)), Tokens(2, (NO_TEXT, 7)))
    assert mouth.sent.pop()[1] == [Tokens(1, (8,)), Tokens(2, (NO_TEXT, 7))]
    for _ in range(FIRST_TOKENS - 1):
        mouth.step(0.001, Tokens(1, (9,)), Tokens(3, (NO_TEXT,)))
        assert not mouth.sent
    mouth.step(0.001, Tokens(3, (NO_TEXT,)))
    assert mouth.sent.pop()[1] == [Tokens(1, (9,) * 3), Tokens(3, (NO_TEXT,) * 4)], "together they may be a character"
    mouth.step(0.001, Tokens(3, (7,)))
    assert not mouth.sent


def test_how_far_a_prompt_is_waits_with_tokens_and_only_the_last_is_told() -> None:
    mouth = begun(1)
    mouth.step(0.001, Tokens(1, (1,)), Progress(2, 3, 9))
    mouth.step(0.001, Tokens(1, (2,)), Progress(2, 6, 9))
    assert not mouth.sent
    mouth.step(HOLD_SECONDS, Tokens(1, (3,)))
    assert mouth.sent.pop()[1] == [Progress(2, 6, 9), Tokens(1, (1, 2, 3))]
    mouth.step(0.001, Tokens(1, (4,)), Progress(2, 7, 9))
    mouth.step(0.001, Tokens(1, (5,)), Tokens(2, (1,)))
    assert mouth.sent.pop()[1] == [Progress(2, 7, 9), Tokens(1, (4, 5)), Tokens(2, (1,))], "a first token"
    mouth.step(0.1, Progress(2, 8, 9))
    assert mouth.sent.pop()[1] == [Progress(2, 8, 9)], "steps are slow now"


STEPS = st.lists(
    st.tuples(st.floats(1e-5, 0.02), st.dictionaries(st.integers(0, 2), st.booleans(), max_size=3), st.booleans())
)


@given(STEPS)
def test_nothing_is_lost_or_changes_places_and_no_token_waits_much_longer_than_a_step(
    steps: list[tuple[float, dict[int, bool], bool]],
) -> None:
    """A step brings some requests a token, and some of those their end."""
    mouth, put = Mouth(), defaultdict[int, list[object]](list)
    for number, (seconds, ends, may_hold) in enumerate(steps):
        events: list[WorkerEvent] = []
        for request_id, is_last in ends.items():
            events.append(Tokens(request_id, (number,)))
            events += [Finished(request_id, FinishReason.STOP, USAGE)] if is_last else []
            put[request_id] += [number, "end"] if is_last else [number]
        mouth.step(seconds, *events, may_hold=may_hold)
        waited = mouth.now - mouth.sent[-1][0] if mouth.sent else 0.0
        assert waited <= HOLD_SECONDS or told(mouth) == put
    mouth.outbox.flush()
    assert told(mouth) == put


def told(mouth: Mouth) -> dict[int, list[object]]:
    """Of each request, its tokens and its ends in order; of a message, at most one event of tokens each."""
    got = defaultdict[int, list[object]](list)
    for _, left in mouth.sent:
        growing = [event.request_id for event in left if isinstance(event, Tokens)]
        assert len(growing) == len(set(growing))
        ended = {event.request_id for event in left if isinstance(event, Finished)}
        assert all(event.is_last == (event.request_id in ended) for event in left if isinstance(event, Tokens))
        for event in left:
            if isinstance(event, Tokens):
                got[event.request_id] += event.token_ids
            elif isinstance(event, Finished):
                got[event.request_id].append("end")
    return got
