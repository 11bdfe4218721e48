"""POST /v1/chat/completions: OpenAI's wire around one turn, streamed or in one piece."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from mm35local.chat.messages import Effort
from mm35local.chat.parser import TextDelta, ThinkingDelta
from mm35local.chat.turn import Done, Started, TurnEvent, run_turn
from mm35local.errors import EngineError
from mm35local.server.schemas import ChatRequest, parse
from mm35local.server.security import read_body
from mm35local.server.service import Service
from mm35local.server.sse import EventStream, frame, unless_gone
from mm35local.types import Usage

router = APIRouter()

_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is left to read it


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = parse(ChatRequest, await read_body(request))
    dialect = service.dialect()
    turn = asked.turn(service.model.sampling_for(asked.effort), datetime.now().astimezone())
    events = run_turn(service.engine, dialect, turn)
    headers = _notes(asked, has_effort=dialect.has_effort)
    envelope = _Envelope(service.model.id)
    if asked.stream:
        return EventStream(_frames(events, envelope, wants_usage=asked.wants_usage), headers)
    done = await unless_gone(request.receive, _last(events))
    if done is None:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    return JSONResponse(envelope.completion(done), headers=headers)


def _notes(asked: ChatRequest, *, has_effort: bool) -> dict[str, str]:
    """What a client should know about its request and OpenAI's shape has no place for."""
    if asked.effort is Effort.NONE or has_effort:
        return {}
    return {"X-MM35-Note": "this model has no reasoning effort: reasoning_effort was not used"}


async def _last(events: AsyncGenerator[TurnEvent, None]) -> Done:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return event
    raise EngineError("the turn ended without an answer")


async def _frames(
    events: AsyncGenerator[TurnEvent, None], envelope: _Envelope, *, wants_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            match event:
                case Started():
                    yield frame(envelope.chunk({"role": "assistant", "content": ""}))
                case ThinkingDelta():
                    yield frame(envelope.chunk({"reasoning_content": event.text}))
                case TextDelta():
                    yield frame(envelope.chunk({"content": event.text}))
                case Done():
                    yield frame(envelope.chunk({}, event.finish_reason.value))
                    if wants_usage:
                        yield frame(envelope.usage_chunk(event.usage))


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What is the same in every chunk of one answer."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": _usage(usage)}

    def completion(self, done: Done) -> dict[str, Any]:
        message = {"role": "assistant", "content": done.text, "refusal": None}
        if done.thinking:
            message["reasoning_content"] = done.thinking
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.finish_reason.value}
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(done.usage)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_completion_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens},
    }
