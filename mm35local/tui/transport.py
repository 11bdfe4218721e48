"""The chat's requests as HTTP. Importing this loads httpx and pydantic, a third of a second where Python is slow: the
first frame of the chat does without it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import httpx
from pydantic import ValidationError

from mm35local.errors import ServerError, ServerUnreachable, UsageError
from mm35local.loopback import is_loopback
from mm35local.tui.address import HINT
from mm35local.tui.events import ChatEvent, Ended, Health, Opened, ServerState
from mm35local.tui.request import ChatRequest
from mm35local.tui.sse import iter_data
from mm35local.tui.wire import SERVER_NAME, HealthBody, read_chunk, read_error

CONNECT_SECONDS = 5.0


class Transport:
    """Talks to one server; owns its connections, so `aclose` it."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """Raises UsageError for a name of a host that cannot be looked up."""
        self.url = url
        address = _parsed(url)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # An answer may be minutes away while a long prompt is read; Esc ends a wait, not a clock.
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            # A proxy of the environment must not stand between us and this machine.
            trust_env=not is_loopback(address.host),
            verify=address.scheme == "https",
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def health(self) -> Health:
        """The server's health. Raises ServerUnreachable if nothing answers, ServerError if it is not one of ours."""
        try:
            reply = await self._http.get("/health", timeout=CONNECT_SECONDS)
            body = HealthBody.model_validate_json(reply.content)
        except httpx.HTTPError as problem:
            raise ServerUnreachable(self.url, _describe(problem)) from problem
        except ValidationError as problem:
            raise self._foreign() from problem
        if body.server != SERVER_NAME:
            raise self._foreign()
        if body.status is ServerState.DRAINING:
            raise ServerUnreachable(self.url, "it is shutting down")
        return body.as_health()

    def _foreign(self) -> ServerError:
        return ServerError(
            f"another program answers at {self.url}: its /health is not that of an {SERVER_NAME} server",
            "choose another port with --port, or the address of an mm35 server with --url",
        )

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """The events of one answer, `Ended` (and `Usage`) last.

        Raises ServerError with the server's own words or where the answer breaks off, ServerUnreachable where none
        begins.
        """
        is_open = is_ended = False
        try:
            async with self._post(request) as reply:
                if reply.is_error:
                    raise read_error(reply.status_code, await reply.aread())
                is_open = True
                yield Opened()
                async for data in iter_data(reply.aiter_bytes()):
                    for event in read_chunk(data):
                        is_ended = is_ended or isinstance(event, Ended)
                        yield event
        except httpx.HTTPError as problem:
            if is_open:
                raise _broken_off(_describe(problem)) from problem
            raise ServerUnreachable(self.url, _describe(problem)) from problem
        if not is_ended:
            raise _broken_off("the server said no more")

    def _post(self, request: ChatRequest) -> AbstractAsyncContextManager[httpx.Response]:
        num_bytes = sum(map(len, request.pieces()))  # said beforehand: not every server reads bodies of unknown length
        headers = {"Content-Type": "application/json", "Content-Length": str(num_bytes)}
        content = _asynchronously(request.pieces())
        return self._http.stream("POST", "/v1/chat/completions", content=content, headers=headers)


async def _asynchronously(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _broken_off(detail: str) -> ServerError:
    return ServerError(f"the answer broke off: {detail}", "send the question again once the server is well")


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as problem:
        raise UsageError(f"{url!r} is no address: {problem}", HINT) from problem


def _describe(problem: httpx.HTTPError) -> str:
    match problem:
        case httpx.ConnectTimeout() | httpx.ReadTimeout():
            return "no answer in time"
        case httpx.ConnectError():
            return "the connection was refused"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return "the connection broke"
        case _:
            return str(problem) or type(problem).__name__
