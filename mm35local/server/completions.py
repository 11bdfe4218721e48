"""POST /v1/completions: OpenAI's older wire. A prompt is continued as it stands; no chat template comes between."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response

from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Conversation, Effort
from mm35local.chat.parser import TextDelta
from mm35local.chat.turn import Done, Turn, TurnEvent
from mm35local.errors import RequestError
from mm35local.server.answers import respond, with_own_seeds
from mm35local.server.chat_writer import openai_usage
from mm35local.server.clients import client_of
from mm35local.server.logprobs import PendingScores, completion_logprobs, num_characters
from mm35local.server.notes import note_headers
from mm35local.server.parsing import Items, parse
from mm35local.server.problems import Problem
from mm35local.server.sampling import MAX_CHOICES, NumLogprobs, SamplingFields, StopList, StreamFields, TokenLimit
from mm35local.server.security import read_body
from mm35local.server.service import Service
from mm35local.server.sse import COMMENT, DONE, frame
from mm35local.server.stopwatch import Stopwatch
from mm35local.server.unsupported import refuse_unsupported, unused_notes
from mm35local.server.verbatim import NO_CONVERSATION, Parts, Verbatim, continued, filled

router = APIRouter()
_DEFAULT_MAX_TOKENS = 16
"""OpenAI's; a raw text seldom ends by itself."""

_Ids = Annotated[Items[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(SamplingFields, StreamFields):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # extras are looked at by `refuse_unsupported` only

    prompt: str | _Ids | Annotated[Items[str] | Items[_Ids], Field(min_length=1, max_length=MAX_CHOICES)]
    suffix: str | None = None
    max_tokens: TokenLimit = _DEFAULT_MAX_TOKENS
    stop: StopList = ()
    logprobs: NumLogprobs = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None

    @model_validator(mode="after")
    def _is_supported(self) -> CompletionRequest:
        refuse_unsupported(self.model_extra or {})
        return self

    def prompts(self, dialect: Dialect, metadata: Mapping[str, object]) -> list[Parts]:
        """Raises RequestError if a gap is to be filled and the model cannot."""
        return [self._parts(given, dialect, metadata) for given in self._given()]

    def _given(self) -> Sequence[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]

    def _parts(self, given: str | list[int], dialect: Dialect, metadata: Mapping[str, object]) -> Parts:
        if not self.suffix:
            return continued(given, dialect, metadata) if isinstance(given, str) else tuple(given)
        if not isinstance(given, str):
            raise RequestError("suffix goes with a prompt of text, found token ids", "suffix")
        return filled(given, self.suffix, dialect, metadata)


@router.post("/v1/completions", response_model=None)
@router.post("/completions", response_model=None, include_in_schema=False)
async def completions(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = parse(CompletionRequest, await read_body(request))
    dialect = service.dialect()
    params = asked.sampling(service.model.sampling_for(Effort.NONE), asked.max_tokens)
    params = replace(params, num_logprobs=asked.logprobs)
    turn = Turn(Conversation(NO_CONVERSATION, datetime.now().astimezone()), params, asked.stop)
    choices = [
        service.answer(each, "completions", client_of(request), Verbatim(dialect.vocabulary, parts))
        for parts in asked.prompts(dialect, service.model.metadata)
        for each in with_own_seeds(turn, asked.n or 1)
    ]
    writer = CompletionWriter(
        service.model.id, num_choices=asked.n or 1, num_answers=len(choices), wants_usage=asked.wants_usage
    )
    headers = note_headers(Effort.NONE, dialect, unused_notes(asked.model_extra or {}))
    return await respond(request, choices, writer, streams=bool(asked.stream), headers=headers)


class CompletionWriter:
    """Implements `answers.Writer`."""

    ping = COMMENT

    def __init__(self, model: str, *, num_choices: int, num_answers: int, wants_usage: bool) -> None:
        """`num_choices` answers to each prompt, `num_answers` in all."""
        self._num_choices = num_choices
        self._head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time())}
        self._head["model"] = model
        self._wants_usage = wants_usage
        self._watches = [Stopwatch() for _ in range(num_answers)]
        self._scores: defaultdict[int, PendingScores] = defaultdict(PendingScores)
        self._num_told: defaultdict[int, int] = defaultdict(int)
        self._dones: dict[int, Done] = {}

    def take(self, index: int, event: TurnEvent) -> Iterator[bytes]:
        self._watches[index].feed(event)
        self._scores[index].feed(event)
        if isinstance(event, TextDelta):
            yield self._chunk(index, event.text, None)
        elif isinstance(event, Done):
            self._dones[index] = event
            yield self._chunk(index, "", event.finish_reason.value, timings=self._watches[index].timings())

    def _chunk(self, index: int, text: str, finish_reason: str | None, **more: Any) -> bytes:
        tokens = self._scores[index].take()
        logprobs = completion_logprobs(tokens, self._num_told[index])
        self._num_told[index] += num_characters(tokens)
        return frame({**self._head, "choices": [_choice(index, text, finish_reason, logprobs)], **more})

    def whole(self) -> dict[str, Any]:
        dones = sorted(self._dones.items())
        choices = [
            _choice(index, done.text, done.finish_reason.value, completion_logprobs(self._scores[index].all))
            for index, done in dones
        ]
        return {**self._head, "choices": choices, "usage": self._usage(), "timings": self._watches[0].timings()}

    def end(self) -> bytes:
        return (frame({**self._head, "choices": [], "usage": self._usage()}) if self._wants_usage else b"") + DONE

    def failed(self, problem: Problem) -> bytes:
        return frame(problem.body, "error") + DONE

    def _usage(self) -> dict[str, Any]:
        return openai_usage(self._dones, self._num_choices)


def _choice(index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
