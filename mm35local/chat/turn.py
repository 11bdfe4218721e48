"""One turn of a chat: a conversation in, typed deltas out. The only file of this room that touches an engine.

Invariant: a turn ends in exactly one `Done`, or raises an Mm35Error; the texts of its deltas concatenate to
`Done.text` and `Done.thinking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Conversation
from mm35local.chat.parser import Delta, Parser, TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.stops import StopStrings
from mm35local.engine import api
from mm35local.errors import ContextLengthExceeded, EngineError, RequestError
from mm35local.types import FinishReason, Prompt, SamplingParams, Usage


@dataclass(frozen=True, slots=True)
class Turn:
    """What to answer, and how. `stops` end the answer's text; they are not looked for in thinking."""

    conversation: Conversation
    params: SamplingParams
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Prefill:
    num_computed: int
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Done:
    """A stop string counts as `FinishReason.STOP`."""

    finish_reason: FinishReason
    usage: Usage
    text: str
    thinking: str


TurnEvent = Started | Prefill | TextDelta | ThinkingDelta | Done


class _Answer:
    """What the model said so far: parsed, and cut at the first stop string."""

    def __init__(self, parser: Parser, stops: tuple[str, ...]) -> None:
        self._parser = parser
        self._stops = StopStrings(stops)
        self._started = Started(0, 0)
        self._num_tokens = 0
        self._texts: list[str] = []
        self._thoughts: list[str] = []

    def take(self, event: api.RequestEvent) -> Iterator[TurnEvent]:
        """What there is to tell after an event of the engine. Raises the error of `Failed`."""
        match event:
            case api.Started():
                self._started = Started(event.num_prompt_tokens, event.num_cached_tokens)
                yield self._started
            case api.Progress():
                yield Prefill(event.num_computed, event.num_prompt_tokens)
            case api.Tokens():
                yield from _merged(self._read(event.token_ids))
            case api.Finished():
                yield from self._end()
            case api.Failed():
                raise event.error

    def done_after(self, event: api.RequestEvent) -> Done | None:
        """The end, if `event` was the engine's last or a stop string was found. Raises EngineError if cut short."""
        if self._stops.is_found:
            return self._done(FinishReason.STOP, self._usage())
        if not isinstance(event, api.Finished):
            return None
        if event.reason is FinishReason.CANCELLED:
            raise EngineError("the answer was cut short: the engine is shutting down", "send the request again later")
        return self._done(event.reason, event.usage)

    def _read(self, token_ids: tuple[int, ...]) -> Iterator[TextDelta | ThinkingDelta]:
        """One id at a time, so that the usage counts no token after the stop string."""
        for token_id in token_ids:
            self._num_tokens += 1
            yield from self._say(self._parser.feed((token_id,)))
            if self._stops.is_found:
                return

    def _end(self) -> Iterator[TurnEvent]:
        yield from self._say(self._parser.flush())
        if text := self._stops.flush():
            self._texts.append(text)
            yield TextDelta(text)

    def _say(self, deltas: Sequence[Delta]) -> Iterator[TextDelta | ThinkingDelta]:
        for delta in deltas:
            if isinstance(delta, ThinkingDelta):
                self._thoughts.append(delta.text)
                yield delta
            elif text := self._stops.feed(_text(delta)):
                self._texts.append(text)
                yield TextDelta(text)

    def _usage(self) -> Usage:
        return Usage(self._started.num_prompt_tokens, self._num_tokens, self._started.num_cached_tokens)

    def _done(self, reason: FinishReason, usage: Usage) -> Done:
        return Done(reason, usage, "".join(self._texts), "".join(self._thoughts))


def _text(delta: TextDelta | ToolCallDelta) -> str:
    """No tools are offered, so a call is the model's odd way of saying something: kept, as text."""
    return delta.text if isinstance(delta, TextDelta) else delta.name + delta.arguments


def _merged(deltas: Iterable[TextDelta | ThinkingDelta]) -> Iterator[TextDelta | ThinkingDelta]:
    """One delta where several of a kind follow each other: a step's tokens are one message to the client."""
    for kind, run in groupby(deltas, type):
        yield kind("".join(delta.text for delta in run))


async def run_turn(engine: api.Engine, dialect: Dialect, turn: Turn) -> AsyncGenerator[TurnEvent, None]:
    """The events of one answer, `Done` last. Closing the generator early cancels the engine's request.

    Raises what rendering and the engine raise: RequestError, ContextLengthExceeded, EngineError.
    """
    prompt = await _encode(engine, dialect, turn.conversation)
    _check_length(prompt, turn.params, engine.status.info)
    answer = _Answer(dialect.parser(), turn.stops)
    done: Done | None = None
    async with aclosing(engine.generate(prompt, turn.params)) as events:
        async for event in events:
            for news in answer.take(event):
                yield news
            if done := answer.done_after(event):
                break
    if done is None:
        raise EngineError("the engine ended the answer without saying how", "send the request again")
    yield done


async def _encode(engine: api.Engine, dialect: Dialect, conversation: Conversation) -> Prompt:
    """Rendering a long history takes a while, so it leaves the event loop to others."""
    parts = await asyncio.to_thread(dialect.render, conversation)
    ids = tuple(part for part in parts if isinstance(part, int))
    if len(ids) < len(parts):
        ids = tuple(await engine.tokenize(parts))
    if not ids:
        raise RequestError("the messages make an empty prompt", "messages", hint="send a user message with some text")
    return Prompt(ids)


def _check_length(prompt: Prompt, params: SamplingParams, info: api.EngineInfo | None) -> None:
    """The engine's own rule, asked here because the worker answers only after its present step."""
    if info is not None and len(prompt.token_ids) + (params.max_tokens or 1) > info.n_ctx:
        raise ContextLengthExceeded(len(prompt.token_ids), params.max_tokens or 0, info.n_ctx)
