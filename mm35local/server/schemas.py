"""The body of POST /v1/chat/completions as it comes over the wire, and what it asks of us.

Unknown fields are ignored. Known ones that would change the answer and are not supported are refused by name:
nothing that matters is dropped in silence.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.turn import Turn
from mm35local.errors import RequestError
from mm35local.server.unsupported import refuse_unsupported
from mm35local.types import SamplingParams

_MAX_INT = 2**30
_NUM_SEEDS = 2**32 - 1  # llama.cpp keeps the last 32-bit value for "draw one"
_EFFORTS = {
    "none": Effort.NONE,
    "minimal": Effort.NONE,
    "low": Effort.NONE,
    "medium": Effort.HIGH,
    "high": Effort.HIGH,
    "xhigh": Effort.HIGH,
    "max": Effort.HIGH,
}

_Model = TypeVar("_Model", bound=BaseModel)


def _text(content: object) -> object:
    """A string, a list of text parts (joined as they are), or null for nothing."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for i, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text"):
            raise ValueError(f"part {i} is of type {kind!r}, only text is supported")
        if not isinstance(text, str):
            raise ValueError(f"part {i} has no text")
        texts.append(text)
    return "".join(texts)


def _stop_list(stop: object) -> object:
    """One string or several; empty ones could never end anything sensible."""
    given = [stop] if isinstance(stop, str) else [] if stop is None else stop
    return [item for item in given if item != ""] if isinstance(given, list) else given


def _token_limit(value: object) -> object:
    """-1 is how llama.cpp's clients write "no limit"."""
    return None if value == -1 else value


_Text = Annotated[str, BeforeValidator(_text)]
_TokenLimit = Annotated[int | None, Field(ge=1, le=_MAX_INT), BeforeValidator(_token_limit)]


class WireMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Text = ""
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[Any] | None = None
    function_call: Any = None

    @model_validator(mode="after")
    def _says_something(self) -> WireMessage:
        if self.tool_calls or self.function_call:
            raise ValueError("tool calls are not supported yet; leave the message out or send its text")
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise ValueError("content is missing")
        return self

    def to_message(self) -> Message:
        thinking = self.reasoning_content or (self.reasoning if isinstance(self.reasoning, str) else "")
        return Message(Role(self.role), self.content, thinking if self.role == "assistant" else "")


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # extras are looked at by `refuse_unsupported` only

    messages: Annotated[list[WireMessage], Field(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _TokenLimit = None
    max_completion_tokens: _TokenLimit = None
    stop: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=16), BeforeValidator(_stop_list)] = []
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, le=_MAX_INT)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    repeat_penalty: Annotated[float | None, Field(ge=0.01, le=10)] = None
    """llama.cpp's name of the same."""
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _is_supported(self) -> ChatRequest:
        refuse_unsupported(self.model_extra or {})
        return self

    @property
    def effort(self) -> Effort:
        return _EFFORTS[self.reasoning_effort or "none"]

    @property
    def wants_usage(self) -> bool:
        """Only asked of streams: an answer in one piece always has it."""
        return self.stream_options is not None and self.stream_options.include_usage

    def turn(self, defaults: SamplingParams, now: datetime) -> Turn:
        """`defaults` are the model's for this effort."""
        messages = tuple(message.to_message() for message in self.messages)
        return Turn(Conversation(messages, now, self.effort), self._sampling(defaults), tuple(self.stop))

    def _sampling(self, defaults: SamplingParams) -> SamplingParams:
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty or self.repeat_penalty,
            "seed": None if self.seed is None else self.seed % _NUM_SEEDS,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "ignore_eos": self.ignore_eos or None,
        }
        fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(defaults, **fields)


def parse(kind: type[_Model], body: bytes) -> _Model:
    """`body` as a `kind`. Raises RequestError naming the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        is_cut = error.errors()[0]["type"] == "json_invalid" and b"\\ud" in body.lower()
        if not is_cut:
            raise _request_error(error) from error
    # Clients cut strings in the middle of an emoji. Half a character is no text, but no reason to fail either.
    try:
        return kind.model_validate_json(_without_half_characters(body))
    except ValidationError as error:
        raise _request_error(error) from error


def _without_half_characters(body: bytes) -> bytes:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _request_error(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return RequestError(f"the body is no valid JSON: {first['ctx']['error']}", hint="send a JSON object")
    field = ".".join(map(str, first["loc"])) or None
    message = first["msg"].removeprefix("Value error, ")
    found = f", found {first['input']!r}" if _is_short(first["input"]) else ""
    return RequestError(f"{field or 'the body'}: {message}{found}", field)


def _is_short(value: object) -> bool:
    return value is None or (isinstance(value, bool | int | float | str) and len(repr(value)) <= 80)
