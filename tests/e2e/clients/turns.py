"""What every client asks of the trained miniature, and how a script says that it went well."""

from __future__ import annotations

import base64
import json
import struct
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

TURNS = (
    *("plain", "streamed", "tools_auto", "tools_required", "tools_named", "tools_parallel"),
    *("json_schema", "image", "thinking", "cancel", "error"),
)
OPPOSITE = "I need the opposite of hot."
CALL_ONE = "Call Clara."
CALL_TWO = "Call Yara and Clara."
SUM = "44 + 43 = ?"
JSON = "Give me JSON: city Santiago, degrees 21."
CITY = {"city": "Santiago", "degrees": 21}
CITY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
COLOUR = "What colour is this?"
TOO_LONG = "one two three " * 6000
SECONDS_TO_STOP = 5.0


def string_tool(name: str, description: str, field: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"name": name, "description": description, "parameters": schema}


def png(red: int, green: int, blue: int, side: int = 56) -> bytes:
    """A square of one colour, without Pillow: the clients have an environment of their own."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RED_PNG = base64.b64encode(png(214, 32, 32)).decode()
RED_URL = f"data:image/png;base64,{RED_PNG}"

PHONE = string_tool("phone", "Call a person", "name")
WEATHER = string_tool("weather", "Weather in a city", "city")

FACTS = {
    "opposite": OPPOSITE,
    "callOne": CALL_ONE,
    "callTwo": CALL_TWO,
    "sum": SUM,
    "json": JSON,
    "city": CITY,
    "citySchema": CITY_SCHEMA,
    "colour": COLOUR,
    "redUrl": RED_URL,
    "tooLong": TOO_LONG,
    "phone": PHONE,
    "weather": WEATHER,
}
"""For scripts in other languages."""


def openai_tools(*tools: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": tool} for tool in tools]


def user(content: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def seen() -> list[dict[str, Any]]:
    """The red square and the question about it, as OpenAI's parts."""
    return [{"type": "image_url", "image_url": {"url": RED_URL}}, {"type": "text", "text": COLOUR}]


def check(found: object, expected: object) -> None:
    """An assert that stays when Python runs optimised."""
    if found != expected:
        raise AssertionError(f"expected {expected!r}, found {found!r}")


def check_call(name: str | None, arguments: str | dict[str, Any] | None, expected: dict[str, str]) -> None:
    check(name, PHONE["name"])
    check(json.loads(arguments) if isinstance(arguments, str) else arguments, expected)


def until_idle(url: str) -> None:
    """The answer that was left has stopped."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as page:
            if b"\nmm35_requests_running 0.0" in page.read():
                return
        time.sleep(0.05)
    raise AssertionError(f"the answer still runs {SECONDS_TO_STOP} s after it was left")


def run(make: Callable[[str], Any]) -> None:
    """Calls a method for each of TURNS, in order, and prints a line after each."""
    client = make(sys.argv[1])
    for turn in TURNS:
        getattr(client, turn)()
        print(f"ok {turn}", flush=True)
