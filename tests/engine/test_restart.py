"""Back-off after a death, and giving up."""

from __future__ import annotations

from mm35local.engine.restart import DeathRow, RestartPolicy


def test_the_delay_doubles_up_to_the_limit_then_it_is_given_up() -> None:
    deaths = DeathRow(RestartPolicy(first_delay_seconds=1, max_delay_seconds=5, max_deaths=6))
    assert [deaths.next_delay(0) for _ in range(6)] == [1, 2, 4, 5, 5, None]
    assert deaths.num_deaths == 6


def test_a_stable_worker_starts_a_new_row() -> None:
    deaths = DeathRow(RestartPolicy(first_delay_seconds=1, max_deaths=3, stable_seconds=60))
    assert [deaths.next_delay(seconds) for seconds in (0, 10, 60, 59)] == [1, 2, 1, 2]
    assert deaths.next_delay(0) is None
