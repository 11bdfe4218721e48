"""What is told of an answer's times."""

from __future__ import annotations

import time

import pytest

from mm35local.chat.deltas import TextDelta
from mm35local.chat.turn import Started
from mm35local.server.stopwatch import Stopwatch


def test_a_start_that_is_told_with_the_first_token_counts_from_when_it_was() -> None:
    watch = Stopwatch()
    watch.asked_at = time.monotonic() - 3
    watch.feed(Started(10, 2, at=watch.asked_at + 1))
    watch.feed(TextDelta("a"))
    timings = watch.timings()
    assert timings["queue_ms"] == pytest.approx(1000)
    assert timings["prompt_ms"] == pytest.approx(2000, abs=500)
