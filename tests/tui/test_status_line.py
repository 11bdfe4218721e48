"""The line under the prompt: who waits too, what the cards hold, and the size that will be refused."""

from __future__ import annotations

import pytest

from mm35local.tui.events import Opened, Prefill
from mm35local.tui.options import ChatOptions
from mm35local.tui.reply import Reply
from mm35local.types import Usage
from tests.fakes.chat_server import ChatServer, Pause, Read, Say
from tests.tui.chat_pilot import open_chat
from tests.tui.conftest import until

GIB = 1 << 30


def _slots(num_waiting: int) -> dict[str, int]:
    return {"total": 2, "busy": 2, "waiting": num_waiting}


async def test_how_many_wait_until_the_engine_begins(server: ChatServer) -> None:
    server.script.scripts = [[Pause(2.5), Read(10, 100, 0), Pause(30)]]
    server.script.health = {"slots": _slots(3)}
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await until(lambda: "waiting · at most 2 before you" in chat.status)
        server.script.health = {"slots": _slots(1)}
        await until(lambda: "waiting · next in the queue" in chat.status)
        await until(lambda: "reading 10 / 100 tokens" in chat.status)


def test_who_waits_may_come_before() -> None:
    reply = Reply(1, "m")
    assert reply.is_queued
    for num_waiting, num_before in [(0, None), (3, 2), (5, 4), (2, 1), (0, 1)]:
        reply.tell_waiting(num_waiting)
        assert reply.num_before == num_before
    reply.feed(Opened())
    assert reply.is_queued
    reply.feed(Prefill(10, 0, 0))
    assert not reply.is_queued


@pytest.mark.parametrize(("width", "cards"), [(80, " · GPU 63.2 + 61.0 GiB"), (50, "")])
async def test_what_each_card_holds_where_there_is_room(server: ChatServer, width: int, cards: str) -> None:
    held = [("CUDA0", 63.2), ("CUDA1", 61.0)]
    server.script.health = {"memory": [{"device": name, "bytes": int(size * GIB)} for name, size in held]}
    async with open_chat(ChatOptions(server.url), (width, 24)) as chat:
        assert chat.status.startswith(f"● ready{cards} ")
        assert chat.status.rstrip().endswith("0 / 8,192")


async def test_the_size_that_will_be_refused_leaves_room_for_the_answer(server: ChatServer) -> None:
    server.script.scripts = [[Say("a")]]
    async with open_chat(ChatOptions(server.url, max_tokens=1000)) as chat:
        assert chat.status.rstrip().endswith("0 / 7,193")
        await chat.ask("?")
        await chat.answered()
        assert chat.status.rstrip().endswith("8 / 7,193")


async def test_a_stopped_answer_counts_too(server: ChatServer) -> None:
    server.script.scripts = [(Read(30, 30, 10), Say("one "), Say("two "), Pause(30))]
    async with open_chat(ChatOptions(server.url)) as chat:
        await chat.ask("?")
        await until(lambda: chat.status.rstrip().endswith("32 / 8,192"))
        await chat.pilot.press("escape")
        await chat.answered()
        assert chat.app.session.messages[-1].outcome.usage == Usage(30, 2, 10)
        assert chat.status.rstrip().endswith("32 / 8,192")
        assert "30 in, 2 out" in chat.status
        assert chat.text("Answer .figures").startswith("stopped · 2 tokens")
