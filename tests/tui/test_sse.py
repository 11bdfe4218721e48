from __future__ import annotations

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from mm35local.tui.sse import iter_data


async def _chunks(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


async def _read(data: bytes, *sizes: int) -> list[bytes]:
    return [event async for event in iter_data(_chunks(data, list(sizes)))]


async def test_comments_and_other_fields_are_skipped() -> None:
    assert await _read(b": ping\n\nevent: x\nid: 1\ndata: a\n\n: ping\n\ndata:b\n\n") == [b"a", b"b"]


async def test_lines_of_one_event_are_joined_and_crlf_is_a_line_end() -> None:
    assert await _read(b"data: a\r\ndata: b\r\n\r\n") == [b"a\nb"]


async def test_done_ends_the_stream() -> None:
    assert await _read(b"data: a\n\ndata: [DONE]\n\ndata: b\n\n") == [b"a"]


async def test_other_line_ends_of_unicode_are_text() -> None:
    text = "one\u2028two\x85three\x0bfour".encode()
    assert await _read(b"data: " + text + b"\n\n") == [text]


@given(st.lists(st.integers(0, 7), max_size=40))
async def test_chunk_borders_do_not_matter(sizes: list[int]) -> None:
    data = ": ping\n\ndata: é…\n\ndata: b\r\n\r\ndata: [DONE]\n\n".encode()
    assert await _read(data, *sizes) == ["é…".encode(), b"b"]
