"""Looking for guesses is dear only where steps are short, and rare only where it found nothing."""

from __future__ import annotations

from mm35local.engine.lookout import MOST_IN_VAIN, STEPS_BETWEEN, Lookout


def looks(lookout: Lookout, num_steps: int, *, step_seconds: float, look_seconds: float, found: bool = False) -> int:
    num_looks = 0
    for _ in range(num_steps):
        if lookout.is_due():
            num_looks += 1
            lookout.looked(look_seconds, found=found)
        lookout.take(step_seconds)
    return num_looks


def test_beside_a_long_step_it_always_looks() -> None:
    assert looks(Lookout(), 200, step_seconds=0.03, look_seconds=0.0005) == 200


def test_beside_a_short_one_it_looks_at_every_few_steps_once_it_found_nothing_for_a_while() -> None:
    lookout = Lookout()
    assert looks(lookout, MOST_IN_VAIN, step_seconds=0.001, look_seconds=0.0001) == MOST_IN_VAIN
    assert looks(lookout, 40 * STEPS_BETWEEN, step_seconds=0.001, look_seconds=0.0001) == 40


def test_what_is_found_makes_it_look_at_every_step_again() -> None:
    lookout = Lookout()
    looks(lookout, 100, step_seconds=0.001, look_seconds=0.0001)
    assert looks(lookout, STEPS_BETWEEN, step_seconds=0.001, look_seconds=0.0001, found=True) == 1
    assert looks(lookout, 50, step_seconds=0.001, look_seconds=0.0001, found=True) == 50
    assert looks(lookout, MOST_IN_VAIN, step_seconds=0.001, look_seconds=0.0001) == MOST_IN_VAIN
