"""What counts as the address of a server."""

from __future__ import annotations

from urllib.parse import urlsplit

from mm35local.errors import UsageError

HINT = "an address looks like http://127.0.0.1:8080"


def checked(url: str) -> str:
    """The address of a server without /v1. Raises UsageError if it is no http(s) address."""
    try:
        parsed = urlsplit(url)
        is_plain = url.isprintable() and " " not in url and parsed.port != 0
    except ValueError as problem:
        raise UsageError(f"{url!r} is no address: {problem}", HINT) from problem
    if parsed.scheme not in ("http", "https") or not parsed.hostname or not is_plain:
        raise UsageError(f"{url!r} is no http address", HINT)
    return url.rstrip("/").removesuffix("/v1")
