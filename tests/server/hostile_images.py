"""Images that are none, are too much, or point where nobody may look; all in the chat's image_url."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from mm35local.server.images import MAX_IMAGES
from tests.fakes.pictures import data_url, png

SMALL = png(28, 56)


def shown(*urls: str) -> Mapping[str, Any]:
    """The body of a chat that shows what these URLs hold."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": parts}]}


def _claims(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header promises a large picture."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" * 64)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels))
    return b"\x89PNG\r\n\x1a\n" + chunks


_SVG = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>'

ADDRESSES = {
    "this machine": "http://127.0.0.1:22/x.png",
    "this machine by name": "http://localhost/x.png",
    "this machine as one number": "http://2130706433/x.png",
    "this machine in IPv6": "http://[::1]/x.png",
    "this machine, IPv4 inside IPv6": "http://[::ffff:127.0.0.1]/x.png",
    "the cloud's metadata": "http://169.254.169.254/latest/meta-data/",
    "a private network": "http://10.0.0.1/x.png",
    "no address at all": "http://0.0.0.0/x.png",
    "a file": "file:///etc/passwd",
    "another protocol": "gopher://example.com/x",
}
PICTURES = {
    "a picture of 3.6 billion points": data_url(_claims(60_000, 60_000)),
    "a picture one point high": data_url(_claims(2_000_000_000, 1)),
    "a picture cut short": data_url(SMALL[:40]),
    "text that says it is a picture": data_url(b"GIF89a" + b"x" * 100),
    "a drawing that includes a file": "data:image/svg+xml;base64," + base64.b64encode(_SVG).decode(),
    "a data URL that is not base64": "data:image/png;base64,%%%",
}
CASES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    *((f"an image from {where}", shown(url)) for where, url in ADDRESSES.items()),
    *((name, shown(url)) for name, url in PICTURES.items()),
    ("one image too many", shown(*[data_url(SMALL)] * (MAX_IMAGES + 1))),
)
