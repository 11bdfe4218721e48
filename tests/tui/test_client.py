from __future__ import annotations

import contextlib
import json

import pytest

from mm35local.errors import ServerError, ServerUnreachable, UsageError
from mm35local.tui.client import ServerClient
from mm35local.tui.events import ChatEvent, Delta, Ended, Opened, ServerState
from mm35local.tui.request import ChatMessage, ChatRequest
from mm35local.types import Usage
from tests.fakes.chat_server import ChatServer, Drop, Fail, Finish, Ping, Raw, Refuse, Say, Think, trickle
from tests.tui.conftest import until

ASK = ChatRequest((ChatMessage("user", "hi"),))


async def _events(url: str, request: ChatRequest = ASK, api_key: str | None = None) -> list[ChatEvent]:
    async with contextlib.aclosing(ServerClient(url, api_key)) as client:
        return [event async for event in client.chat(request)]


async def test_an_answer_as_events(server: ChatServer) -> None:
    server.script.scripts = [(Think("hm"), Ping(), Say("Hi"), Say(" \u2028there"), Finish("length", 11, 5))]
    assert await _events(server.url) == [
        Opened(),
        Delta("", "hm"),
        Delta("Hi"),
        Delta(" \u2028there"),
        Ended("length"),
        Usage(11, 3, 5),
    ]


async def test_only_what_was_chosen_is_sent(server: ChatServer) -> None:
    await _events(server.url + "/v1/")
    await _events(server.url, ChatRequest((ChatMessage("user", "hi"),), effort="high", temperature=0.0, max_tokens=5))
    plain, chosen = server.script.requests
    assert plain == {
        "model": "default",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }
    assert (chosen["reasoning_effort"], chosen["temperature"], chosen["max_tokens"]) == ("high", 0.0, 5)


async def test_a_long_conversation_is_sent_in_pieces(server: ChatServer) -> None:
    said = [ChatMessage("user", f"{number} \u2028 " + "é" * 5000) for number in range(100)]
    said.append(ChatMessage("user", "and this", ("data:image/png;base64,AA",)))
    request = ChatRequest(tuple(said))
    pieces = list(request.pieces())
    assert max(map(len, pieces)) < 80_000
    assert len(pieces) > 10
    await _events(server.url, request)
    assert server.script.requests[0]["messages"] == [message.body() for message in said]
    assert json.loads(b"".join(pieces)) == server.script.requests[0]
    assert next(ChatRequest(()).pieces()).endswith(b'"messages":[]}')


async def test_a_refusal_is_the_servers_words(server: ChatServer) -> None:
    server.script.scripts = [(Refuse(400, "messages is empty"),)]
    with pytest.raises(ServerError, match="messages is empty"):
        await _events(server.url)


async def test_the_key_is_sent(server: ChatServer) -> None:
    server.script.api_key = "secret"
    with pytest.raises(ServerError, match="API key") as caught:
        await _events(server.url)
    assert "--api-key" in caught.value.hint
    assert Delta("Hello.") in await _events(server.url, api_key="secret")


async def test_an_error_in_mid_stream(server: ChatServer) -> None:
    server.script.scripts = [(Say("a"), Fail("the engine's process ended"))]
    with pytest.raises(ServerError, match="process ended"):
        await _events(server.url)


@pytest.mark.parametrize("ending", [Drop(), Raw(b"data: [DONE]\n\n")])
async def test_an_answer_that_breaks_off(server: ChatServer, ending: Drop | Raw) -> None:
    server.script.scripts = [(Say("a"), ending)]
    with pytest.raises(ServerError, match="broke off"):
        await _events(server.url)


async def test_closing_the_stream_closes_the_connection(server: ChatServer) -> None:
    server.script.scripts = [(Say("a"), *trickle("b", 500))]
    async with contextlib.aclosing(ServerClient(server.url)) as client:
        async with contextlib.aclosing(client.chat(ASK)) as events:
            async for event in events:
                if event == Delta("b"):
                    break
        await until(lambda: server.script.num_gone == 1, seconds=2)


async def test_health(server: ChatServer) -> None:
    async with contextlib.aclosing(ServerClient(server.url)) as client:
        health = await client.health()
        assert health.state is ServerState.READY
        assert health.model is not None
        assert (health.model.id, health.model.n_ctx) == ("SmolLM2-135M-Instruct-Q4_1", 8192)
        server.script.health = {"status": "loading", "progress": 0.25}
        assert (await client.health()).progress == 0.25
        server.script.health = {"status": "draining"}
        with pytest.raises(ServerUnreachable, match="shutting down"):
            await client.health()
        server.script.health = {"server": "nginx"}
        with pytest.raises(ServerError, match="another program"):
            await client.health()
        server.close()
        with pytest.raises(ServerUnreachable):
            await client.health()


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError):
        ServerClient(url)


async def test_a_host_that_is_no_name_is_told_with_the_first_request() -> None:
    async with contextlib.aclosing(ServerClient("http://ä..b:80")) as client:
        with pytest.raises(UsageError, match="IDNA"):
            await client.health()
