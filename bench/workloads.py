"""What agents and people ask of a server, as functions: an open client in, named figures out.

Texts are drawn from a seeded stream of common words, so that no two runs of a workload share a prefix by accident:
`seed` must differ between rounds on one running server.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from random import Random

import httpx

from bench.streams import Stream, stream_all, stream_chat, stream_text

Figures = Mapping[str, float]
Workload = Callable[[httpx.AsyncClient, int], Awaitable[Figures]]
Chat = list[dict[str, str]]

_WORD_LIST = """river stone garden winter letter market bridge window silver morning story village doctor engine yellow
paper travel music kitchen ocean forest teacher number simple answer machine history summer little planet bottle friend
corner middle country science picture evening animal reason people weather copper ticket station"""
_WORDS = _WORD_LIST.split()
_LONG_TOKENS = 6000
_SHARED_TOKENS = 1500
_NUM_REQUESTS = 16
_SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "items": {
            "type": "array",
            "minItems": 4,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 40}, "count": {"type": "integer"}},
                "required": ["name", "count"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "items"],
    "additionalProperties": False,
}


def words(rng: Random, count: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(count))


def ask(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def streams(num_streams: int) -> Workload:
    """Sixteen distinct prompts of some 170 tokens, 64 tokens out, in so many streams.

    Of one request alone there is no p95, and it would time what a server does only once.
    """

    async def run(client: httpx.AsyncClient, seed: int) -> Figures:
        rng = Random(f"streams {num_streams} {seed}")
        chats = [ask(f"Write a long story with these words: {words(rng, 130)}.") for _ in range(_NUM_REQUESTS)]
        start = time.perf_counter()
        answers = await _stream_in_turn(client, chats, num_streams, 64, ignore_eos=True)
        return {
            "total tok/s": _rate(answers, start),
            "TTFT p50 s": statistics.median(answer.ttft_seconds for answer in answers),
            "TTFT p95 s": _percentile([answer.ttft_seconds for answer in answers], 0.95),
        }

    return run


async def _stream_in_turn(
    client: httpx.AsyncClient, chats: list[Chat], num_streams: int, max_tokens: int, **fields: object
) -> list[Stream]:
    """So many at once, each stream's share of the chats one after another."""

    async def stream(own: list[Chat]) -> list[Stream]:
        return [await stream_chat(client, chat, max_tokens, **fields) for chat in own]

    by_stream = await asyncio.gather(*(stream(chats[i::num_streams]) for i in range(num_streams)))
    return [answer for answers in by_stream for answer in answers]


async def shared_prefix(client: httpx.AsyncClient, seed: int) -> Figures:
    """16 at once, the first 1,500 tokens the same."""
    rng = Random(f"shared {seed}")
    prefix = await _words_of(client, rng, _SHARED_TOKENS)
    chats = [ask(f"{prefix}\nWrite a story about the word: {words(rng, 3)}.") for _ in range(16)]
    start = time.perf_counter()
    answers = await stream_all(client, chats, 32, ignore_eos=True)
    return {
        "total tok/s": _rate(answers, start),
        "cached share": sum(a.num_cached_tokens for a in answers) / max(1, sum(a.num_prompt_tokens for a in answers)),
    }


async def agents(client: httpx.AsyncClient, seed: int) -> Figures:
    """An agent of 12 turns, each re-sending all before it, and two more like it interleaved."""
    rngs = [Random(f"agent {seed} {i}") for i in range(3)]
    chats = [[{"role": "system", "content": f"You are an agent. {words(rng, 250)}"}] for rng in rngs]
    seen = [0, 0, 0]
    cached, could_be = 0, 0
    ttfts: list[float] = []
    start = time.perf_counter()
    for _ in range(12):
        for i, (rng, chat) in enumerate(zip(rngs, chats, strict=True)):
            chat.append({"role": "user", "content": f"Result of the tool: {words(rng, 50)}. Go on."})
            answer = await stream_chat(client, chat, 24, ignore_eos=True)
            chat.append({"role": "assistant", "content": answer.text})
            ttfts.append(answer.ttft_seconds)
            cached, could_be = cached + answer.num_cached_tokens, could_be + seen[i]
            seen[i] = answer.num_prompt_tokens
    return {
        "seconds": time.perf_counter() - start,
        "TTFT p50 s": statistics.median(ttfts),
        "cached of what could be": cached / could_be if could_be else 0.0,
    }


async def long_prompt_beside(client: httpx.AsyncClient, seed: int) -> Figures:
    """A prompt of some 6,000 tokens arrives beside four running streams: how long do those stand still?

    The streams go on with a text: a chat's pieces wait where they may become a call.
    """
    rng = Random(f"beside {seed}")
    long_text = await _words_of(client, rng, _LONG_TOKENS)
    texts = [f"A very long story with these words: {words(rng, 40)}. Once upon a time" for _ in range(4)]
    started = time.perf_counter()
    await asyncio.gather(*(stream_text(client, text, 40, ignore_eos=True) for text in texts))
    tenth = time.perf_counter() - started
    running = [asyncio.ensure_future(stream_text(client, text, 400, ignore_eos=True)) for text in texts]
    await asyncio.sleep(min(4.0, tenth))
    arrived = time.perf_counter()
    long = await stream_chat(client, ask(f"{long_text}\nName one word of this list."), 4, ignore_eos=True)
    answers = await asyncio.gather(*running)
    until = long.piece_times[0]
    gaps = [gap for a in answers for gap in _gaps_between(a, arrived, until)]
    calm = [gap for a in answers for gap in a.gaps_after(0)]
    return {
        "worst gap / median gap": max(gaps) / statistics.median(calm),
        "worst gap s": max(gaps),
        "median gap s": statistics.median(calm),
        "long TTFT s": long.ttft_seconds,
        "long prompt tokens": float(long.num_prompt_tokens),
    }


def json_schema(*, is_constrained: bool) -> Workload:
    """Sixteen requests for JSON by a schema in four streams, or the same ones without it."""

    async def run(client: httpx.AsyncClient, seed: int) -> Figures:
        rng = Random(f"json {seed}")
        chats = [
            ask(f"Give a JSON list of things to buy with these words: {words(rng, 30)}.") for _ in range(_NUM_REQUESTS)
        ]
        schema = {"type": "json_schema", "json_schema": {"name": "list", "strict": True, "schema": _SCHEMA}}
        start = time.perf_counter()
        fields: dict[str, object] = {"response_format": schema} if is_constrained else {"ignore_eos": True}
        answers = await _stream_in_turn(client, chats, 4, 96, **fields)
        return {"tok/s": _rate(answers, start)}

    return run


async def first_token_of_known_prefix(client: httpx.AsyncClient, seed: int) -> Figures:
    """The time to the first token after a prefix of some 1,500 tokens. Same seed, same prompt."""
    rng = Random(f"known {seed}")
    answer = await stream_chat(client, ask(f"{words(rng, 1200)}\nWhat is this?"), 4, ignore_eos=True)
    return {"TTFT s": answer.ttft_seconds, "cached tokens": float(answer.num_cached_tokens)}


async def _words_of(client: httpx.AsyncClient, rng: Random, num_tokens: int) -> str:
    """Words that make about so many tokens of the server's model."""
    return words(rng, round(num_tokens * 100 / await _num_tokens(client, words(rng, 100))))


async def _num_tokens(client: httpx.AsyncClient, text: str) -> int:
    """Of a text as the server's model counts, without the chat template around it."""
    once, twice = [await stream_chat(client, ask(" ".join([text] * n)), 1, ignore_eos=True) for n in (1, 2)]
    return twice.num_prompt_tokens - once.num_prompt_tokens


def _gaps_between(stream: Stream, start: float, end: float) -> list[float]:
    """Gaps that overlap start..end; a stream that was over by then has none."""
    times = stream.piece_times
    return [b - a for a, b in pairwise(times) if b > start and a < end]


def _rate(answers: list[Stream], start: float) -> float:
    return sum(answer.num_tokens for answer in answers) / (max(answer.ended_at for answer in answers) - start)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
