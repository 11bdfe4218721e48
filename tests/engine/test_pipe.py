"""Messages come out as they went in, however the bytes between are cut; an end that is gone is noticed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.api import Failed, Submit, Tokens
from mm35local.engine.pipe import Pipe, Unpacker, packed
from mm35local.errors import ContextLengthExceeded
from mm35local.types import Prompt, SamplingParams

MESSAGES = st.lists(st.recursive(st.integers() | st.text() | st.binary() | st.none(), st.lists, max_leaves=5))


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1))
def test_messages_come_out_whole_and_in_order_wherever_they_are_cut(messages: list[object], sizes: list[int]) -> None:
    data = b"".join(map(packed, messages))
    unpacker, got, at = Unpacker(), list[object](), 0
    while at < len(data):
        for size in sizes:
            got += unpacker.feed(data[at : at + size])
            at += size
    assert got == messages


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    pipe = Pipe(ours)
    yield pipe, theirs
    pipe.close()
    theirs.close()


def test_what_the_engine_says_goes_both_ways(ends: tuple[Pipe, socket.socket]) -> None:
    pipe, other = ends
    error = ContextLengthExceeded(7, 8, 9)
    events = [Tokens(1, tuple(range(500))), Failed(2, error)]
    pipe.send(events)
    [[tokens, failed]] = Unpacker().feed(other.recv(1 << 16))
    assert tokens == events[0]
    assert vars(failed.error) == vars(error)
    submit = Submit(3, Prompt(tuple(range(200_000))), SamplingParams())
    sending = threading.Thread(target=other.sendall, args=(packed(submit) + packed("next"),))
    sending.start()
    assert (pipe.recv(), pipe.recv()) == (submit, "next"), "more than the sockets hold at once"
    sending.join()


@pytest.mark.parametrize("num_bytes", [0, 3, 12])
def test_an_end_that_is_gone_ends_the_waiting_also_within_a_message(
    ends: tuple[Pipe, socket.socket], num_bytes: int
) -> None:
    pipe, other = ends
    other.sendall(packed("a message")[:num_bytes])
    other.close()
    with pytest.raises(EOFError):
        pipe.recv()
    with pytest.raises(OSError, match="Broken pipe"):
        pipe.send("nobody reads it")
