"""Every hostile case gets what its table says, and docs/hostile.md is that table."""

from __future__ import annotations

from tests.server.hostile import PAGE, page, table


async def test_hostile_input_gets_what_the_page_says() -> None:
    rows = await table()
    assert len(rows) >= 64
    wrong = [(case.name, case.status, status, words) for _, (case, status, words) in rows if status != case.status]
    assert not wrong
    assert not [words for _, (_, _, words) in rows if "FORGED" in words]
    assert page(rows) == PAGE.read_text("utf-8")
