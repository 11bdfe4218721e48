"""What a step costs is what was measured, and what nobody measured is tried."""

from __future__ import annotations

from random import Random

import pytest

from mm35local.engine.step_costs import NUM_FRESH, REACH, Filled, StepCosts


def test_between_measurements_it_is_interpolated() -> None:
    costs = StepCosts()
    costs.record(1, 1.0)
    costs.record(5, 3.0)
    assert costs.estimates(1, 4) == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])


def test_a_few_more_rows_than_measured_are_taken_to_be_free_and_no_more_are_told() -> None:
    costs = StepCosts()
    costs.record(2, 1.0)
    assert costs.estimates(2, 100) == [1.0] * (2 * REACH - 1)
    assert StepCosts().estimates(3, 2) == [1.0, 1.0, 1.0]


def test_behind_the_most_rows_measured_a_row_costs_what_it_did_before() -> None:
    costs = StepCosts()
    costs.record(1, 1.0)
    costs.record(3, 2.0)
    assert costs.estimates(3, 2) == pytest.approx([2.0, 2.5, 3.0])
    costs.record(4, 0.5)
    assert costs.estimates(4, 2) == pytest.approx([costs.estimates(4, 0)[0]] * 3)  # nothing is quicker with more rows


def test_one_slow_step_counts_little_and_many_count() -> None:
    costs = StepCosts()
    costs.record(1, 1.0)
    costs.record(9, 2.0)
    costs.record(1, 100.0)
    one, nine = costs.estimates(1, 8)[0], costs.estimates(9, 0)[0]
    assert one < 1.5
    assert one / nine < 0.6  # of a half: the surprise is taken for the machine's as well
    for _ in range(60):
        costs.record(1, 100.0)
    assert costs.estimates(1, 0)[0] > 50


def test_noise_of_days_leaves_numbers_that_say_the_same() -> None:
    """What is taken for the machine's drifts away from what is taken for a size's: 1e-304 is some hours of it."""
    random, costs = Random(1), StepCosts()
    costs.record(1, 1.0)
    for _ in range(20_000):
        costs.record(1, 0.01 * random.lognormvariate(0, 0.3))
        assert 0.5 <= costs._slowness <= 2.0
    assert costs.estimates(1, 0)[0] == pytest.approx(0.01, rel=0.5)


def test_a_machine_that_gets_slower_slows_the_sizes_that_were_not_measured_since() -> None:
    costs = StepCosts()
    for rows in (1, 17):
        costs.record(rows, 1.0 + rows)
    for _ in range(40):
        costs.record(1, 4.0)
    small, large = costs.estimates(1, 0)[0], costs.estimates(17, 0)[0]
    assert small == pytest.approx(4.0, rel=0.05)
    assert 18 * 1.2 < large < 18 * 2
    assert costs.estimates(17, 0)[0] / small < 18 / 2


def test_a_clock_that_stands_still_does_no_harm() -> None:
    costs = StepCosts()
    for _ in range(1000):
        costs.record(1, 0.0)
    costs.record(2, 1.0)
    assert all(seconds > 0 for seconds in costs.estimates(1, 3))


def test_old_measurements_are_forgotten() -> None:
    costs = StepCosts()
    costs.record(4, 9.0)
    for _ in range(NUM_FRESH + 1):
        costs.record(1, 1.0)
    assert costs.estimates(1, 3) == [1.0] * 4


def test_no_step_takes_longer_than_a_filled_one_up_to_its_rows() -> None:
    costs = StepCosts()
    costs.record(1, 1.0)
    costs.record(2, 3.0)
    assert costs.estimates(1, 4, Filled(4, 4.0, 2.0)) == pytest.approx([1.0, 3.0, 4.0, 4.0, 9.0])
    assert costs.estimates(2, 1, Filled(4, 2.5, 2.0)) == pytest.approx([2.5, 2.5])
    assert costs.estimates(6, 1, Filled(4, 4.0, 2.0)) == pytest.approx([11.0, 13.0])


def test_a_row_is_not_cheap_because_many_are() -> None:
    """Steps of one row and filled ones were measured: a line between them says nothing of three rows, unfilled."""
    costs = StepCosts()
    costs.record(1, 1.0)
    costs.record(9, 4.0)
    assert costs.estimates(1, 4, Filled(64, 4.0, 0.9)) == pytest.approx([1.0, 1.9, 2.8, 3.7, 4.0])
    only_one = StepCosts()
    only_one.record(1, 1.0)
    assert only_one.estimates(1, 2, Filled(64, 4.0, 0.9)) == pytest.approx([1.0, 1.9, 2.8]), "nor is it free"


def test_what_a_filled_step_takes_is_told_beyond_the_reach_of_what_was_measured() -> None:
    costs = StepCosts()
    costs.record(1, 1.0)
    assert len(costs.estimates(1, 100)) == REACH
    assert len(costs.estimates(1, 100, Filled(64, 3.0, 1.0))) == 64
