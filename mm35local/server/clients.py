"""Who asks: the engine lets clients take turns, so that the many requests of one do not keep the others waiting.

Two requests are of one client when the API key, the address and the program (User-Agent) are the same. On one machine
all share the address and often a key that means nothing; then the programs take turns.
"""

from __future__ import annotations

import hashlib
import secrets

from starlette.requests import Request

_SECRET = secrets.token_bytes(16)
_FIELDS = ("authorization", "x-api-key", "user-agent")


def client_of(request: Request) -> str:
    """A name that is good in this process only: no key can be told from it."""
    known = [request.client.host if request.client else "", *(request.headers.get(name, "") for name in _FIELDS)]
    return hashlib.blake2b("\n".join(known).encode(), digest_size=8, key=_SECRET).hexdigest()
