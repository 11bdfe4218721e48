"""A chat server that follows a script, over real loopback HTTP: what the terminal chat is tested against.

Each request to `/v1/chat/completions` takes the next script (the last one stays). `python -m tests.fakes.chat_server
PORT` runs it in the foreground with a demonstration script.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Say:
    """One delta of content; its bytes reach the client in one chunk."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Ping:
    """An SSE comment."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Fail:
    """An error in mid-stream; nothing follows."""

    message: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Break the connection without a word."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an HTTP error instead of a stream; only as the first step."""

    status: int
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The last step; scripts that lack it get `Finish()`."""

    reason: str = "stop"
    num_prompt_tokens: int = 7
    num_cached_tokens: int = 3


@dataclass(frozen=True, slots=True)
class Read:
    """How far the prompt is read."""

    num_done: int
    num_total: int
    num_cached: int = 0
    milliseconds: float = 1000.0


@dataclass(frozen=True, slots=True)
class Call:
    """A piece of a tool call; the first one of an index has the name."""

    arguments: str
    name: str | None = None
    index: int = 0


Step = Read | Call | Say | Think | Pause | Ping | Raw | Fail | Drop | Refuse | Finish
Script = Sequence[Step]


def trickle(text: str, times: int, seconds: float = 0.02) -> list[Step]:
    """`text` again and again, `seconds` apart."""
    return [step for _ in range(times) for step in (Pause(seconds), Say(text))]


MODEL = {
    "id": "SmolLM2-135M-Instruct-Q4_1",
    "n_ctx": 8192,
    "n_ctx_train": 8192,
    "size_bytes": 98 << 20,
    "reason": "the largest model of the catalog that this machine holds",
}


class Dropped(Exception):
    """Raised to make the HTTP server break the connection."""


@dataclass
class ChatScript:
    """The state of the server: what it will say, and what it was asked."""

    scripts: list[Script] = field(default_factory=lambda: [(Say("Hello."),)])
    health: dict[str, Any] = field(default_factory=dict)
    """Merged into the answer of /health; a `status` other than "ok" is answered with 503."""
    api_key: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    num_gone: int = 0
    """Clients that left before the end of their answer."""

    def next_script(self) -> Script:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _health(self, _request: Request) -> Response:
        body = {
            "status": "ok",
            "server": "mm35local",
            "version": "0.1.0",
            "model": MODEL,
            "slots": {"total": 8, "busy": 0},
            "restarts": 0,
            **self.health,
        }
        return JSONResponse(body, 200 if body["status"] == "ok" else 503)

    async def _complete(self, request: Request) -> Response:
        self.requests.append(await request.json())
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return _refusal(Refuse(401, "the API key is missing or wrong", "invalid_api_key"))
        script = self.next_script()
        if script and isinstance(script[0], Refuse):
            return _refusal(script[0])
        return StreamingResponse(self._stream(script), media_type="text/event-stream")

    async def _stream(self, script: Script) -> AsyncIterator[bytes]:
        num_tokens = 0
        is_done = False
        try:
            yield _event(_chunk({"role": "assistant", "content": ""}))
            for step in script:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    continue
                if isinstance(step, Drop):
                    is_done = True
                    raise Dropped
                num_tokens += isinstance(step, Say | Think)
                yield _bytes(step, num_tokens)
                if isinstance(step, Fail | Finish):
                    is_done = True
                    return
            yield _bytes(Finish(), num_tokens)
            is_done = True
        finally:
            self.num_gone += not is_done


def _refusal(step: Refuse) -> JSONResponse:
    error = {"message": step.message, "type": "invalid_request_error", "param": None, "code": step.code}
    return JSONResponse({"error": error}, step.status)


def _tool_or_progress(step: Read | Call) -> dict[str, Any]:
    if isinstance(step, Read):
        done = {"total": step.num_total, "cache": step.num_cached, "processed": step.num_done}
        return {**_chunk({}), "prompt_progress": {**done, "time_ms": step.milliseconds}}
    head = {"id": f"call{step.index:05}", "type": "function"} if step.name else {}
    call = {"index": step.index, **head, "function": {"name": step.name or "", "arguments": step.arguments}}
    return _chunk({"tool_calls": [call]})


def _bytes(step: Step, num_tokens: int) -> bytes:
    match step:
        case Say(text):
            return _event(_chunk({"content": text}))
        case Think(text):
            return _event(_chunk({"reasoning_content": text}))
        case Read() | Call():
            return _event(_tool_or_progress(step))
        case Ping() | Raw():
            return step.data if isinstance(step, Raw) else b": ping\n\n"
        case Fail(message):
            error = {"message": message, "type": "server_error", "param": None, "code": None}
            return _event({"error": error})
        case Finish(reason, num_prompt_tokens, num_cached_tokens):
            usage = {
                "prompt_tokens": num_prompt_tokens,
                "completion_tokens": num_tokens,
                "total_tokens": num_prompt_tokens + num_tokens,
                "prompt_tokens_details": {"cached_tokens": num_cached_tokens},
            }
            last = {**_chunk({}), "choices": [], "usage": usage}
            return _event(_chunk({}, reason)) + _event(last) + b"data: [DONE]\n\n"
        case _:
            raise AssertionError(step)


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL["id"], "choices": [choice]}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


class ChatServer:
    """The script behind a real port of 127.0.0.1, in a thread, for as long as the `with` lasts."""

    def __init__(self, script: ChatScript | None = None, port: int = 0) -> None:
        self.script = script or ChatScript()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self.script.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> ChatServer:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the stand-in server did not start"
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and break what is open; safe to call twice."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


DEMO = """Here is a **short tour** of what a terminal can show, [/bold] brackets [[included]].

## A list

1. First, the *plan*: read the file once
2. Then the work, in `O(n)`
   - a nested point
   - and another, longer one that has to be broken over two lines because a terminal is only so wide

```python
def greet(name: str) -> str:
    \"\"\"Say hello.\"\"\"
    return f"Hello, {name}!"  # 42
```

| Quant | Size | Fits in |
|---|---:|---|
| Q4_K_M | 72 GiB | 80 GiB |
| Q8_0 | 128 GiB | 2 x 80 GiB |

> Measure first, then cut.

That is all. See <https://example.org> for more.
"""


def demo_script() -> list[Step]:
    """Thinking and an answer with every kind of Markdown, at about 60 tokens a second."""
    steps: list[Step] = [Pause(0.8), Ping()]
    thought = "The person wants a tour. I should show a list, some code, a table and a quotation. " * 2
    for start in range(0, len(thought), 5):
        steps += [Think(thought[start : start + 5]), Pause(0.02)]
    for start in range(0, len(DEMO), 4):
        steps += [Say(DEMO[start : start + 4]), Pause(0.012)]
    return steps


def main() -> None:
    script = ChatScript(scripts=[demo_script()])
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with suppress(KeyboardInterrupt):
        uvicorn.run(script.app(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
