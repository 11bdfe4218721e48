"""The header that says what of a request was not used: one that every client takes, whatever the request had in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.dialect import load_dialect
from mm35local.chat.messages import Effort
from mm35local.server.notes import HEADER, MOST_CHARS, note_headers
from tests.fakes.metadata import chatml_metadata
from tests.server.conftest import ANSWER, fake_engine, listening

DIALECT = load_dialect(chatml_metadata(), "x")


async def note_of(body: object) -> str:
    """On a real socket, which refuses to send some headers."""
    async with listening(fake_engine()) as here:
        reply = await here.client.post("/v1/responses", json=body)
    assert reply.json()["output"][0]["content"][0]["text"] == ANSWER
    return reply.headers[HEADER]


async def test_many_notes_are_cut() -> None:
    items = [{"type": f"item_{i}"} for i in range(500)]
    note = await note_of({"input": [*items, {"role": "user", "content": "Hi"}]})
    assert note.startswith("input item 0 of type 'item_0' was left out; input item 1 of")
    assert note.endswith(" ...")
    assert len(note) == MOST_CHARS + len(" ...")


async def test_what_no_header_may_hold_is_replaced() -> None:
    tools = [{"type": "web_search", "name": "a\0b\fc\r\nd é🙂"}]
    note = await note_of({"input": "Hi", "tools": tools})
    assert note.startswith("tool a?b?c??d ?? of type 'web_search' was left out; ")


@given(st.lists(st.text(), min_size=1))
def test_any_note_makes_a_header(notes: list[str]) -> None:
    value = note_headers(Effort.NONE, DIALECT, notes)[HEADER]
    assert value == "" or (value.isascii() and value.isprintable())
    assert len(value) <= MOST_CHARS + len(" ...")
