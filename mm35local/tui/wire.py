"""The bytes of the server, checked: pydantic models of `/health`, chat chunks and errors.

Unknown fields are ignored, missing ones get their default: an older or newer server is still understood.
"""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError

from mm35local.errors import Mm35Error, ServerError
from mm35local.tui.events import CallDelta, ChatEvent, Delta, Ended, Health, ModelCard, Prefill, ServerState
from mm35local.types import Usage

SERVER_NAME = "mm35local"
_REFUSED = (400, 413, 422)
"""Status codes of requests that are wrong in themselves."""


class ErrorBody(BaseModel):
    message: str = "the server gave no reason"
    hint: str | None = None
    code: str | int | None = None

    def as_error(self, status_code: int = 200) -> Mm35Error:
        """`status_code` is that of the HTTP answer; 200 for an error in mid-stream."""
        return ServerError(self.message, self.hint or _hint_for(self.code or status_code, status_code))


def _hint_for(code: str | int, status_code: int) -> str:
    if code == "context_length_exceeded":  # the message tells of --ctx
        return "Ctrl+N begins a new conversation, /edit changes the last question"
    if code in ("invalid_api_key", 401):
        return "give the server's key with --api-key"
    if status_code in _REFUSED:
        return "/edit changes the last question, Ctrl+N begins anew"
    return "send the question again; the server's log says more"


class ErrorReply(BaseModel):
    error: ErrorBody


class ModelBody(BaseModel):
    id: str
    n_ctx: int | None = None
    size_bytes: int | None = None
    reason: str | None = None
    vision: bool | None = None

    def as_card(self) -> ModelCard:
        return ModelCard(self.id, self.n_ctx or 0, self.size_bytes or 0, self.reason or "", self.vision)


class SlotsBody(BaseModel):
    total: int = 0
    busy: int = 0
    waiting: int = 0


class CardBody(BaseModel):
    device: str
    bytes: int


class HealthBody(BaseModel):
    server: str = ""
    status: ServerState
    progress: float | None = None
    loaded_bytes: int | None = None
    bytes_per_second: float | None = None
    eta_seconds: float | None = None
    model: ModelBody | None = None
    slots: SlotsBody = Field(default_factory=SlotsBody)
    memory: list[CardBody] = Field(default_factory=list)
    error: ErrorBody | None = None

    def as_health(self) -> Health:
        return Health(
            state=self.status,
            progress=min(1.0, max(0.0, self.progress or 0.0)),
            loaded_bytes=self.loaded_bytes or 0,
            bytes_per_second=self.bytes_per_second or 0.0,
            eta_seconds=self.eta_seconds,
            model=self.model.as_card() if self.model else None,
            num_slots=self.slots.total,
            num_busy_slots=self.slots.busy,
            num_waiting=self.slots.waiting,
            cards=tuple((card.device, card.bytes) for card in self.memory),
            error=self.error.as_error() if self.error and self.status is ServerState.FAILED else None,
        )


class FunctionBody(BaseModel):
    name: str | None = None
    arguments: str | None = None


class CallBody(BaseModel):
    index: int = 0
    id: str | None = None
    function: FunctionBody = Field(default_factory=FunctionBody)

    def as_event(self) -> CallDelta:
        return CallDelta(self.index, self.function.name or "", self.function.arguments or "", self.id or "")


class DeltaBody(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallBody] | None = None

    def as_events(self) -> list[ChatEvent]:
        content, reasoning = self.content or "", self.reasoning_content or ""
        said: list[ChatEvent] = [Delta(content, reasoning)] if content or reasoning else []
        return said + [call.as_event() for call in self.tool_calls or ()]


class ProgressBody(BaseModel):
    total: int = 0
    cache: int = 0
    processed: int = 0
    time_ms: float = 0.0


class ChoiceBody(BaseModel):
    delta: DeltaBody = Field(default_factory=DeltaBody)
    finish_reason: str | None = None


class CachedBody(BaseModel):
    cached_tokens: int | None = None


class UsageBody(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: CachedBody | None = None

    def as_usage(self) -> Usage:
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(self.prompt_tokens, self.completion_tokens, cached or 0)


class ChunkBody(BaseModel):
    choices: list[ChoiceBody] = Field(default_factory=list)
    usage: UsageBody | None = None
    prompt_progress: ProgressBody | None = None
    error: ErrorBody | None = None

    def as_events(self) -> list[ChatEvent]:
        """The events of one chunk, in order. Raises ServerError where the chunk says that the answer failed."""
        if self.error:
            raise self.error.as_error()
        events: list[ChatEvent] = []
        if done := self.prompt_progress:
            events.append(Prefill(done.total, done.cache, done.processed, done.time_ms / 1000))
        for choice in self.choices:
            events.extend(choice.delta.as_events())
            if choice.finish_reason:
                events.append(Ended(choice.finish_reason))
        if self.usage:
            events.append(self.usage.as_usage())
        return events


def read_chunk(data: bytes) -> list[ChatEvent]:
    """Events in the data of one server-sent event. Raises ServerError for an error in it, or for garbage."""
    try:
        return ChunkBody.model_validate_json(data).as_events()
    except ValidationError as problem:
        raise ServerError(
            f"the server sent something that is no chat chunk: {data[:80]!r}", "is it an OpenAI-compatible server?"
        ) from problem


def read_error(status_code: int, body: bytes) -> Mm35Error:
    """The error in an HTTP answer of 4xx or 5xx, whatever its body is."""
    try:
        error = ErrorReply.model_validate_json(body).error
    except ValidationError:
        error = ErrorBody(message=f"the server answered with status {status_code}")
    return error.as_error(status_code)
