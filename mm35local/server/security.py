"""Who may talk to the server, and how much it reads: host names, origins, API keys, the size of a body.

Invariant: keys are compared in constant time and never logged.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from mm35local.loopback import is_loopback
from mm35local.server.problems import Problem, noted

LOOPBACK_HOSTS = frozenset({"localhost"})
"""Loopback addresses written as numbers are always allowed: no name stands for them."""
MAX_BODY_BYTES = 64 << 20
BODY_SECONDS = 60.0
"""So long the next piece of a body may take: a client that sends none holds nothing for ever."""
_PUBLIC_PATHS = ("/health", "/v1/health")


class Guard:
    """ASGI middleware in front of everything.

    `hosts`: the names that a request may use for this server, None for any. On a loopback address this keeps a web
    page whose own name was made to point here (DNS rebinding) from talking to the server. `origins`: the web pages
    that may, beside those of this machine; "*" is all. `api_keys`: any of them opens the door, none leaves it open.
    """

    def __init__(
        self, app: ASGIApp, *, api_keys: Sequence[str], hosts: frozenset[str] | None, origins: Sequence[str]
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope), scope) if scope["type"] == "http" else None
        await (noted(refusal).response(scope["path"]) if refusal else self._app)(scope, receive, send)

    def _refusal(self, headers: Headers, scope: Scope) -> Problem | None:
        if not self._is_ours(_host_name(headers.get("host", ""))):
            return Problem(403, "this server answers to localhost only; use http://127.0.0.1", code="host_not_allowed")
        origin = headers.get("origin")
        if not self._is_welcome(origin) or _is_preflight(headers, scope["method"]):
            page = "" if origin in (None, "null") else f" {origin:.100}"
            words = f"this web page may not use the server; allow it with --cors{page}"
            return Problem(403, words, code="origin_not_allowed")
        if not self._keys or scope["path"] in _PUBLIC_PATHS:
            return None
        given = _given_keys(headers)
        if self._opens(given):
            return None
        what = "wrong" if given else "missing"
        return Problem(
            401,
            f"the API key is {what}; send the header: Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _opens(self, given: Sequence[bytes]) -> bool:
        """Every pair is compared, so that the time tells nothing."""
        return any([hmac.compare_digest(one, key) for one in given for key in self._keys])

    def _is_ours(self, host: str) -> bool:
        return self._hosts is None or host in self._hosts or is_loopback(host)

    def _is_welcome(self, origin: str | None) -> bool:
        """Browsers name the page that asks; programs with pages of their own (vscode-webview:) are no web pages."""
        if origin is None or "*" in self._origins or origin in self._origins:
            return True
        scheme, _, rest = origin.partition("://")
        if origin == "null" or scheme in ("http", "https"):
            host = _host_name(rest)
            return is_loopback(host)
        return True


def _is_preflight(headers: Headers, method: str) -> bool:
    """A browser asks for a page. Those that --cors allows are answered before they come here."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def _given_keys(headers: Headers) -> list[bytes]:
    """From `Authorization: Bearer KEY` and Anthropic's `x-api-key: KEY`."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    found = [bearer.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return [key.encode("latin-1") for key in found if key]


def _host_name(host: str) -> str:
    """A Host header without its port, IPv6 addresses without brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Raises HTTPException: 413 as soon as the body is known to be longer, 408 where it stops coming, 415 packed."""
    if (packing := request.headers.get("content-encoding", "identity")) != "identity":
        raise HTTPException(415, f"bodies packed with {packing[:40]!r} are not read; send plain JSON")
    too_long = HTTPException(413, f"the body is longer than the {max_bytes >> 20} MiB that this server reads")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_long
    body = bytearray()
    async for chunk in _in_time(request.stream()):
        body += chunk
        if len(body) > max_bytes:
            raise too_long
    return bytes(body)


async def _in_time(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    while True:
        try:
            yield await asyncio.wait_for(anext(chunks), BODY_SECONDS)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise HTTPException(400, "the client hung up in the middle of its body") from error  # nobody reads it
        except TimeoutError as error:
            raise HTTPException(408, f"nothing of the body came for {BODY_SECONDS:g} seconds") from error
