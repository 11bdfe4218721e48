"""One turn on every wire, as bytes a client sees. `python -m tests.server.golden_wires` writes the golden file anew.

What differs from run to run (ids, times) is replaced by its name.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from tests.fakes.engine import Script
from tests.fakes.metadata import mistral_metadata
from tests.server.conftest import fake_engine, running, served_model

GOLDEN = Path(__file__).parents[1] / "golden" / "wires.json"
_FUNCTION = {"name": "add", "description": "Adds", "parameters": {"type": "object", "properties": {}}}
_HI = [{"role": "user", "content": "Hi"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": _HI, "tools": [{"type": "function", "function": _FUNCTION}]},
    "/v1/messages": {
        "messages": _HI,
        "max_tokens": 99,
        "tools": [{"name": "add", "description": "Adds", "input_schema": _FUNCTION["parameters"]}],
    },
    "/v1/responses": {"input": "Hi", "tools": [{"type": "function", **_FUNCTION}]},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 99},
}
_CHANGING = re.compile(
    r'((?:chatcmpl|cmpl|msg|resp|rs|fc)[-_])[0-9a-f]{16,}|("(?:created|created_at|\w+_ms|\w+_per_second)":\s?)[\d.]+'
)


def _bytes(text: str) -> tuple[int, ...]:
    return tuple(1000 + byte for byte in text.encode())


def _answer() -> Script:
    ids = (34, *_bytes("hm ö"), 35, *_bytes("Let me see."), 9, *_bytes("add"), 32, *_bytes('{"a": "ü"}'))
    return Script(tuple(ids[i : i + 4] for i in range(0, len(ids), 4)), num_cached_tokens=3)


async def wires() -> dict[str, dict[str, Any]]:
    """Path to the whole answer, and to the lines of the stream."""
    found: dict[str, dict[str, Any]] = {}
    async with running(fake_engine(_answer()), served_model(mistral_metadata())) as here:
        for path, body in REQUESTS.items():
            whole = await here.client.post(path, json=body)
            options = {} if path == "/v1/messages" else {"stream_options": {"include_usage": True}}
            stream = await here.client.post(path, json={**body, **options, "stream": True})
            lines = [line for line in _settled(stream.text).split("\n") if line]
            found[path] = {"whole": json.loads(_settled(whole.text)), "stream": lines}
    return found


def _settled(text: str) -> str:
    return _CHANGING.sub(lambda hit: f"{hit[1]}ID" if hit[1] else f"{hit[2]}0", text)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(asyncio.run(wires()), ensure_ascii=False, indent=1) + "\n", "utf-8")
