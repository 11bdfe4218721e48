"""One streamed answer over HTTP with the time of every piece: what all serving benchmarks measure with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

_SECONDS = 900.0


@dataclass(slots=True)
class Stream:
    """Times are those of `time.perf_counter`, in seconds."""

    asked_at: float
    piece_times: list[float] = field(default_factory=list)
    """When each chunk with something of the answer arrived; usually a token each."""
    text: str = ""
    ended_at: float = 0.0
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def ttft_seconds(self) -> float:
        return self.piece_times[0] - self.asked_at

    @property
    def num_tokens(self) -> int:
        """Completion tokens by the server's own count, else the pieces."""
        return int(self.usage.get("completion_tokens") or len(self.piece_times))

    @property
    def num_prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens") or 0)

    @property
    def num_cached_tokens(self) -> int:
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)

    def gaps_after(self, moment: float) -> list[float]:
        """Seconds between consecutive pieces, of those that end after `moment`."""
        return [b - a for a, b in pairwise(self.piece_times) if b > moment]


async def stream_chat(
    client: httpx.AsyncClient, messages: Sequence[Mapping[str, str]], max_tokens: int, **fields: object
) -> Stream:
    """Ask greedily and read to the end. Raises ValueError if nothing came: an empty answer is no measurement."""
    return await _stream(client, "/v1/chat/completions", {"messages": list(messages), **fields}, max_tokens)


async def stream_text(client: httpx.AsyncClient, prompt: str, max_tokens: int, **fields: object) -> Stream:
    """The same for a prompt that is continued: every token's text comes at once, where a chat's may begin a call."""
    return await _stream(client, "/v1/completions", {"prompt": prompt, **fields}, max_tokens)


async def _stream(client: httpx.AsyncClient, path: str, fields: Mapping[str, object], max_tokens: int) -> Stream:
    body = {
        "model": "any",
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    stream = Stream(time.perf_counter())
    async with client.stream("POST", path, json=body) as reply:
        if reply.is_error:
            raise ValueError(f"HTTP {reply.status_code}: {(await reply.aread())[:300]!r}")
        async for line in reply.aiter_lines():
            _read(line, stream)
    stream.ended_at = time.perf_counter()
    if not stream.piece_times:
        raise ValueError("the answer is empty")
    return stream


def _read(line: str, stream: Stream) -> None:
    if not line.startswith("data: {"):
        return
    chunk = json.loads(line.removeprefix("data: "))
    if chunk.get("error"):
        raise ValueError(f"the stream ended with an error: {chunk['error']}")
    deltas = [choice.get("delta", choice) for choice in chunk.get("choices", ())]
    if any(delta.get(kind) for delta in deltas for kind in ("content", "reasoning_content", "tool_calls", "text")):
        stream.piece_times.append(time.perf_counter())
    stream.text += "".join(delta.get("content") or delta.get("text") or "" for delta in deltas)
    stream.usage = chunk.get("usage") or stream.usage


async def stream_all(
    client: httpx.AsyncClient, chats: Sequence[Sequence[Mapping[str, str]]], max_tokens: int, **fields: object
) -> list[Stream]:
    """All at once."""
    return list(await asyncio.gather(*(stream_chat(client, chat, max_tokens, **fields) for chat in chats)))


def open_client(url: str) -> httpx.AsyncClient:
    """A connection a request: llama-server closes one that waits without a word, which httpx finds out too late."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=_SECONDS, limits=limits)
