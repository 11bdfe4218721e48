"""What is told of an answer's times."""

from __future__ import annotations

import time

import pytest

from mm35local.chat.turn import Decoded, Done, Prefill, Started
from mm35local.server.stopwatch import Stopwatch
from mm35local.types import FinishReason, Usage


def test_a_start_that_is_told_with_the_first_token_counts_from_when_it_was() -> None:
    watch = Stopwatch()
    watch.asked_at = time.monotonic() - 3
    watch.feed(Started(10, 2, at=watch.asked_at + 1))
    watch.feed(Decoded(1))
    timings = watch.timings()
    assert timings["queue_ms"] == pytest.approx(1000)
    assert timings["prompt_ms"] == pytest.approx(2000, abs=500)


def test_tokens_are_counted_as_they_come_and_the_first_ends_the_prompt() -> None:
    watch = Stopwatch()
    watch.feed(Started(10, 2))
    assert watch.progress()["processed"] == 2
    watch.feed(Prefill(6, 10))
    assert (watch.progress()["processed"], watch.first_token_at) == (6, None)
    watch.feed(Decoded(3, 4, 2))
    first_at = watch.first_token_at
    watch.feed(Decoded(1, 2, 0))
    assert (watch.num_decoded, watch.num_drafted, watch.num_accepted) == (4, 6, 2)
    assert watch.progress()["processed"] == watch.progress()["total"] == 10
    assert watch.first_token_at == first_at is not None


def test_a_prompt_was_computed_also_where_its_answer_is_empty() -> None:
    watch = Stopwatch()
    watch.feed(Started(10, 2))
    watch.feed(Done(FinishReason.STOP, Usage(10, 0, 2), "", ""))
    assert (watch.num_computed_tokens, watch.first_token_at) == (10, None)
