"""The body of POST /v1/chat/completions as it comes over the wire, and what it asks of us.

Unknown fields are ignored. Known ones that would change the answer and are not supported are refused by name:
nothing that matters is dropped in silence.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mm35local.chat.content import Content, read_content, read_thinking
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.tools import ToolCall
from mm35local.chat.turn import Turn
from mm35local.errors import RequestError
from mm35local.server.effort import EffortFields
from mm35local.server.format_fields import read_format
from mm35local.server.parsing import Items
from mm35local.server.sampling import MAX_CHOICES, NumLogprobs, SamplingFields, StopList, StreamFields, TokenLimit
from mm35local.server.tool_fields import read_choice, read_tools
from mm35local.server.unsupported import refuse_unsupported, unused_notes
from mm35local.types import SamplingParams


def arguments_text(given: object) -> object:
    """JSON text; some clients send the object itself."""
    return "" if given is None else given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


Arguments = Annotated[str, BeforeValidator(arguments_text)]


class WireFunction(BaseModel):
    name: str
    arguments: Arguments = ""


class WireCall(BaseModel):
    id: str | None = None
    function: WireFunction

    def to_call(self) -> ToolCall:
        return ToolCall(self.id or "", self.function.name, self.function.arguments)


class WireMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Items[WireCall] | None = None
    function_call: Any = None
    tool_call_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> WireMessage:
        if self.function_call:
            raise ValueError("function_call is not supported; send tool_calls")
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise ValueError("content is missing")
        return self

    def to_message(self, field: str) -> Message:
        """`field` is its place in the request, for errors. Raises RequestError for a part that cannot be read."""
        content = read_content(self.content, f"{field}.content")
        if self.role == "assistant":
            calls = tuple(call.to_call() for call in self.tool_calls or ())
            thinking = self._thinking(content, field)
            return Message(Role.ASSISTANT, content.text, thinking, calls, images=content.images)
        if self.role == "tool":
            call_id, name = self.tool_call_id or "", self.name or ""
            return Message(Role.TOOL, content.text, tool_call_id=call_id, name=name, images=content.images)
        return Message(Role(self.role), content.text, images=content.images)

    def _thinking(self, content: Content, field: str) -> str:
        """Under the first name that has any: clients repeat the same thoughts under several."""
        return (
            content.thinking
            or read_thinking(self.reasoning_content, f"{field}.reasoning_content")
            or read_thinking(self.reasoning, f"{field}.reasoning")
        )


class ChatRequest(SamplingFields, EffortFields, StreamFields):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # extras are looked at by `refuse_unsupported` only

    messages: Annotated[Items[WireMessage], Field(min_length=1)]
    model: str | None = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    stop: StopList = ()
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs = None
    return_progress: bool | None = None
    """llama.cpp's: tell in the stream how far the prompt is."""

    @model_validator(mode="after")
    def _is_supported(self) -> ChatRequest:
        refuse_unsupported(self.model_extra or {})
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs goes with logprobs: true", "top_logprobs", hint="send both, or neither")
        return self

    @property
    def contents(self) -> list[tuple[str, object]]:
        """Where images may stand, each with its name."""
        return [(f"messages.{i}.content", message.content) for i, message in enumerate(self.messages)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What of it is not used."""
        return (*read_tools(self.tools)[1], *unused_notes(self.model_extra or {}))

    def turn(self, defaults: SamplingParams, now: datetime) -> Turn:
        """`defaults` are the model's for this effort. Raises RequestError for tools and formats that make no sense."""
        tools, _ = read_tools(self.tools)
        conversation = Conversation(
            tuple(message.to_message(f"messages.{i}") for i, message in enumerate(self.messages)),
            now,
            self.effort,
            tools,
            read_choice(self.tool_choice, tools),
            self.parallel_tool_calls is not False,
        )
        params = self.sampling(defaults, self.max_completion_tokens or self.max_tokens)
        if self.logprobs:
            params = replace(params, num_logprobs=self.top_logprobs or 0)
        return Turn(conversation, params, self.stop, read_format(self.response_format, "response_format"))
