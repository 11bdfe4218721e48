"""Drafts are believed as far as they kept their word, and tried again after a while."""

from __future__ import annotations

import pytest

from mm35local.engine.bargain import FORGETTING_RATE, Bargain


def step(bargain: Bargain, *, promised: float, seconds: float, came: tuple[int, ...], took: float) -> None:
    bargain.promise(promised, seconds)
    bargain.take(took)
    for num_tokens in came:
        bargain.bring(num_tokens)
    bargain.settle()


def test_before_any_step_everything_is_believed() -> None:
    assert Bargain().kept == 1.0


def test_a_promise_that_is_kept_on_average_is_believed() -> None:
    bargain = Bargain()
    for number in range(200):
        step(bargain, promised=4, seconds=0.02, came=(1, 1) if number % 2 else (3, 3), took=0.02)
    assert bargain.kept == pytest.approx(1.0, abs=0.06)


def test_steps_that_bring_less_or_take_longer_are_believed_less() -> None:
    fewer, slower = Bargain(), Bargain()
    for _ in range(100):
        step(fewer, promised=4, seconds=0.02, came=(1, 1), took=0.02)
        step(slower, promised=4, seconds=0.02, came=(2, 2), took=0.03)
    assert fewer.kept == pytest.approx(0.5, rel=0.01)
    assert slower.kept == pytest.approx(2 / 3, rel=0.01)


def test_one_strange_step_counts_little() -> None:
    bargain = Bargain()
    step(bargain, promised=4, seconds=0.02, came=(2, 2), took=60.0)
    assert bargain.kept > 0.7


def test_plain_steps_forget() -> None:
    bargain = Bargain()
    for _ in range(100):
        step(bargain, promised=4, seconds=0.02, came=(1, 1), took=0.02)
    for _ in range(round(3 / FORGETTING_RATE)):
        bargain.take(0.01)
        bargain.bring(1)
        bargain.settle()
    assert bargain.kept > 0.95


def test_a_step_with_a_prompt_beside_it_teaches_nothing() -> None:
    """Nobody tells the time of such a step, for it is the prompt's; nor does one that failed bring anything."""
    bargain = Bargain()
    for _ in range(100):
        bargain.promise(8, 0.02)
        bargain.bring(1)
        bargain.settle()
        bargain.promise(8, 0.02)
        bargain.take(0.02)
        bargain.settle()
    assert bargain.kept == 1.0
