"""A real `mm35 serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
from openai.types import CompletionUsage

START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mm35(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "mm35local", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, **(env or {})},
        check=False,
        timeout=110,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    num_prompt_tokens: int
    num_completion_tokens: int


def _answer(text: str | None, usage: CompletionUsage | None) -> Answer:
    assert text is not None
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return Answer(text, usage.prompt_tokens, usage.completion_tokens)


@dataclass(frozen=True, slots=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str
    client: openai.OpenAI

    def health(self) -> tuple[int, dict[str, Any]]:
        reply = httpx.get(f"{self.url}/health", timeout=5)
        return reply.status_code, reply.json()

    def wait_until(self, status: str) -> dict[str, Any]:
        """The health page once it says `status`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended"
            try:
                _, body = self.health()
            except httpx.TransportError:
                body = {}
            if body.get("status") == status:
                return body
            time.sleep(0.02)
        raise AssertionError(f"the server did not become {status}")

    def ask(self, question: str, max_tokens: int = 24) -> Answer:
        """Greedy, in one piece; the usage must add up."""
        reply = self.client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": question}], max_tokens=max_tokens, temperature=0
        )
        return _answer(reply.choices[0].message.content, reply.usage)

    def stream(self, question: str, max_tokens: int = 24) -> Answer:
        """The same, streamed."""
        chunks = list(
            self.client.chat.completions.create(
                model="any",
                messages=[{"role": "user", "content": question}],
                max_tokens=max_tokens,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return _answer(text, chunks[-1].usage)

    def worker(self) -> psutil.Process:
        """The engine's process: the child that has llama.cpp mapped."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if any("libllama" in region.path for region in child.memory_maps()))


@contextmanager
def serving(*arguments: str, log: Path) -> Iterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mm35local", "serve", "--port", str(port), *arguments]
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL) as process,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        server = Server(process, url, client)
        try:
            server.wait_until("ok")
            yield server
        finally:
            process.terminate()
            process.wait(20)
