"""One turn of a chat: a conversation in, typed deltas out. The only file of this room that touches an engine.

Invariant: a turn ends in exactly one `Done`, or raises an Mm35Error; the texts of its deltas concatenate to
`Done.text`, `Done.thinking` and `Done.tool_calls`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from mm35local.chat.answer import Answer
from mm35local.chat.deltas import Delta, TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Conversation
from mm35local.chat.normalize import normalize
from mm35local.chat.notes import Note
from mm35local.chat.response_format import ResponseFormat
from mm35local.chat.scores import Scores
from mm35local.chat.tools import ToolCall, ToolMode
from mm35local.engine import api
from mm35local.errors import ContextLengthExceeded, EngineClosing, EngineError, RequestError
from mm35local.types import FinishReason, Prompt, SamplingParams, Usage

if TYPE_CHECKING:
    from mm35local.chat.grammar import AnswerGrammar

_SHORT_CHARS, _FEW_MESSAGES = 1 << 15, 64
"""Rendered in 3 to 5 ms, 1 to 3 where most of it was rendered before: a thread costs 2 where all cores compute."""
_LONG_BYTES = 1 << 20
"""Below, tokenizing takes less than a second, and the number of tokens in an error is exact."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What to answer, and how. `stops` end the answer's text; they are not looked for in thinking or in calls."""

    conversation: Conversation
    params: SamplingParams
    stops: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    """None: any text."""
    client: str = ""
    """Who asks; the engine lets clients take turns."""


@dataclass(frozen=True, slots=True)
class Started:
    """The request left the queue. `notes`: what had to be changed in the conversation; for the log."""

    num_prompt_tokens: int
    num_cached_tokens: int
    notes: tuple[Note, ...] = ()
    at: float = field(default_factory=time.monotonic, compare=False)
    """When, of `time.monotonic`."""


@dataclass(frozen=True, slots=True)
class Prefill:
    num_computed: int
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """So many more tokens of the answer were sampled, some of them guessed before: what follows may be their text."""

    num_tokens: int
    num_drafted: int = 0
    num_accepted: int = 0


@dataclass(frozen=True, slots=True)
class Ends:
    """What follows comes at once, up to `Done`: who passes it on may do so in one piece."""


@dataclass(frozen=True, slots=True)
class Done:
    """A stop string counts as `FinishReason.STOP`, a finished call as `FinishReason.TOOL_CALLS`."""

    finish_reason: FinishReason
    usage: Usage
    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...] = ()
    num_thinking_tokens: int = 0
    """Of `usage.num_completion_tokens`; OpenAI's `reasoning_tokens`."""
    warnings: tuple[str, ...] = ()
    """What was odd about the answer or could not be enforced: for the log, and for a client that wants to know."""
    stop: str | None = None
    """The stop string that ended it."""


TurnEvent = Started | Prefill | Decoded | Scores | TextDelta | ThinkingDelta | ToolCallDelta | Ends | Done


class _Events:
    """Reads the engine's events of one request."""

    def __init__(self, answer: Answer, notes: tuple[Note, ...], warnings: tuple[str, ...]) -> None:
        self._answer = answer
        self._notes = notes
        self._warnings = warnings
        self._started = Started(0, 0)
        self._num_drafted = 0
        self._num_accepted = 0

    def take(self, event: api.RequestEvent) -> Iterator[TurnEvent]:
        """What there is to tell after an event of the engine. Raises the error of `Failed`."""
        match event:
            case api.Started():
                self._started = Started(event.num_prompt_tokens, event.num_cached_tokens, self._notes, event.at)
                yield self._started
            case api.Progress():
                yield Prefill(event.num_computed, event.num_prompt_tokens)
            case api.Tokens():
                self._num_drafted += event.num_drafted
                self._num_accepted += event.num_accepted
                yield Decoded(len(event.token_ids), event.num_drafted, event.num_accepted)
                deltas = self._answer.feed(event.token_ids, event.logprobs)
                yield from _told(deltas, ends=event.is_last or self._answer.is_stopped)
            case api.Finished():
                yield from _told(self._answer.flush(is_cut=event.reason is not FinishReason.STOP), ends=True)
            case api.Failed():
                raise event.error

    def done_after(self, event: api.RequestEvent) -> Done | None:
        """The end, if `event` was the engine's last or a stop string was found. Raises EngineClosing if cut short."""
        if self._answer.is_stopped:
            return self._done(FinishReason.STOP, self._usage())
        if not isinstance(event, api.Finished):
            return None
        if event.reason is FinishReason.CANCELLED:
            raise EngineClosing("the answer was cut short: the server is shutting down")
        return self._done(event.reason, event.usage)

    def _usage(self) -> Usage:
        """So far, as the engine would count it: a stop string ends an answer before the engine does."""
        return Usage(
            self._started.num_prompt_tokens,
            self._answer.num_tokens,
            self._started.num_cached_tokens,
            self._num_drafted,
            self._num_accepted,
        )

    def _done(self, reason: FinishReason, usage: Usage) -> Done:
        answer = self._answer
        if answer.tool_calls and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS
        return Done(
            reason,
            usage,
            answer.text,
            answer.thinking,
            answer.tool_calls,
            answer.num_thinking_tokens,
            (*self._warnings, *answer.warnings),
            answer.stop,
        )


def _told(deltas: Sequence[Delta | Scores], *, ends: bool) -> Iterator[TurnEvent]:
    if deltas and ends:
        yield Ends()
    yield from deltas


@dataclass(frozen=True, slots=True)
class _Room:
    """The engine's own rule on length, asked here because the worker answers only after its present step."""

    params: SamplingParams
    info: api.EngineInfo | None
    longest_bytes: int
    """Of a token's text."""

    def check(self, num_tokens: int, *, is_least: bool = False) -> None:
        """Raises ContextLengthExceeded."""
        if self.info is not None and num_tokens + (self.params.max_tokens or 1) > self.info.n_ctx:
            raise ContextLengthExceeded(num_tokens, self.params.max_tokens or 0, self.info.n_ctx, is_least)

    def check_least(self, texts: Iterable[str]) -> None:
        """Many megabytes take a minute to tokenize: where they cannot fit however they are cut, it is not done."""
        num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if num_bytes > _LONG_BYTES:
            self.check(num_bytes // self.longest_bytes, is_least=True)


async def run_turn(engine: api.Engine, dialect: Dialect, turn: Turn) -> AsyncGenerator[TurnEvent, None]:
    """The events of one answer, `Done` last. Closing the generator early cancels the engine's request.

    Raises what rendering and the engine raise: RequestError, ContextLengthExceeded, EngineError.
    """
    history = normalize(turn.conversation.messages)
    conversation = replace(turn.conversation, messages=history.messages)
    room = _Room(turn.params, engine.status.info, dialect.vocabulary.longest_bytes)
    room.check_least(message.content.strip() for message in history.messages)
    prompt = await _encode(engine, dialect, conversation, room)
    room.check(len(prompt.token_ids))
    enforced = await _grammar(dialect, conversation, turn.response_format)
    params = replace(turn.params, grammar=enforced.grammar or turn.params.grammar)
    offered = _callable(conversation)
    answer = Answer(dialect.parser(), dialect.vocabulary, turn.stops, offered, prompt.token_ids)
    reader = _Events(answer, history.notes, enforced.warnings)
    done: Done | None = None
    async with aclosing(engine.generate(prompt, params, turn.client)) as events:
        async for event in events:
            for news in reader.take(event):
                yield news
            if done := reader.done_after(event):
                break
    if done is None:
        raise EngineError("the engine ended the answer without saying how", "send the request again")
    yield done


def _callable(conversation: Conversation) -> tuple[str, ...]:
    """The tools that the answer may call."""
    if conversation.tool_choice.mode is ToolMode.NONE:
        return ()
    return tuple(tool.name for tool in conversation.tools)


async def _grammar(dialect: Dialect, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
    if wanted is None and not conversation.tools:
        return dialect.grammar(conversation, None)  # any text: nothing to compile
    return await asyncio.to_thread(dialect.grammar, conversation, wanted)


def _is_short(conversation: Conversation) -> bool:
    if conversation.tools or conversation.images or len(conversation.messages) > _FEW_MESSAGES:
        return False
    texts = (text for message in conversation.messages for text in (message.content, message.thinking))
    arguments = (call.arguments for message in conversation.messages for call in message.tool_calls)
    return sum(map(len, chain(texts, arguments))) < _SHORT_CHARS


async def _encode(engine: api.Engine, dialect: Dialect, conversation: Conversation, room: _Room) -> Prompt:
    """Rendering a long history takes a while, so it leaves the event loop to others."""
    if _is_short(conversation):
        parts = dialect.render(conversation)
    else:
        parts = await asyncio.to_thread(dialect.render, conversation)
    ids = tuple(part for part in parts if isinstance(part, int))
    if len(ids) < len(parts):
        room.check_least(part for part in parts if isinstance(part, str))
        ids = tuple(await engine.tokenize(parts))
    if not ids:
        raise RequestError("the messages make an empty prompt", "messages", hint="send a user message with some text")
    return Prompt(ids, conversation.images)
