"""A small `make fuzz` with every run."""

from __future__ import annotations

from tests.e2e.fuzz_http import fuzz_both


async def test_requests_made_from_our_own_page_are_answered() -> None:
    statuses = await fuzz_both(200)
    assert statuses.total() >= 150
    assert statuses[200] >= 20
    assert set(statuses) <= {200, 400, 404, 413, 422}
