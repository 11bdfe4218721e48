"""Who may talk to the server, and how much it reads: host names, the API key, the size of a body.

Invariant: a key is compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from mm35local.server.problems import Problem

LOOPBACK_HOSTS = frozenset({"localhost"})
"""Loopback addresses written as numbers are always allowed: no name stands for them."""
MAX_BODY_BYTES = 64 << 20
_PUBLIC_PATHS = ("/health",)


class Guard:
    """ASGI middleware in front of everything.

    `hosts`: the names that a request may use for this server, None for any. On a loopback address this keeps a web
    page whose own name was made to point here (DNS rebinding) from talking to the server.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        await (refusal.response() if refusal else self._app)(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> Problem | None:
        if not self._is_ours(_host_name(headers.get("host", ""))):
            return Problem(403, "this server answers to localhost only; use http://127.0.0.1", code="host_not_allowed")
        if self._expected is None or path in _PUBLIC_PATHS:
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if hmac.compare_digest(given, self._expected):
            return None
        what = "wrong" if given else "missing"
        return Problem(
            401,
            f"the API key is {what}; send the header: Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _is_ours(self, host: str) -> bool:
        return self._hosts is None or host in self._hosts or _is_loopback_address(host)


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """A Host header without its port, IPv6 addresses without brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Raises HTTPException 413 as soon as the body is known to be longer."""
    declared = request.headers.get("content-length", "0")
    chunks: list[bytes] = []
    num_bytes = int(declared) if declared.isdecimal() else 0
    if num_bytes <= max_bytes:
        num_bytes = 0
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                break
            chunks.append(chunk)
    if num_bytes > max_bytes:
        raise HTTPException(413, f"the body is longer than the {max_bytes >> 20} MiB that this server reads")
    return b"".join(chunks)
