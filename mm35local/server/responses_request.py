"""The body of POST /v1/responses: OpenAI's newer wire, and what it asks of us.

Unknown fields are ignored. Nothing is stored here, so what points to an earlier response is refused with the code
that makes clients send everything again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, model_validator

from mm35local.chat.content import read_content, read_thinking
from mm35local.chat.messages import Conversation, Message, Role, shifted
from mm35local.chat.tools import ToolCall
from mm35local.chat.turn import Turn
from mm35local.errors import RequestError
from mm35local.server.chat_request import arguments_text
from mm35local.server.effort import EffortFields
from mm35local.server.format_fields import read_format
from mm35local.server.parsing import Items
from mm35local.server.responses_items import unsealed
from mm35local.server.sampling import NumLogprobs, SamplingFields, TokenLimit
from mm35local.server.tool_fields import read_choice, read_tools
from mm35local.types import SamplingParams

_ROLES = ("system", "developer", "user", "assistant")
_LOGPROBS = "message.output_text.logprobs"
_STATEFUL = {
    "previous_response_id": "previous_response_not_found",
    "conversation": "unsupported_parameter",
    "background": "unsupported_parameter",
    "prompt": "unsupported_parameter",
}


class _Text(BaseModel):
    format: Any = None


class ResponsesRequest(SamplingFields, EffortFields):
    input: str | list[Any] = ""
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: TokenLimit = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    include: Items[str] | None = None
    top_logprobs: NumLogprobs = None
    metadata: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None

    @model_validator(mode="after")
    def _is_supported(self) -> ResponsesRequest:
        for name, code in _STATEFUL.items():
            if getattr(self, name):
                hint = f"leave {name} out and send the whole conversation as input"
                raise RequestError(f"{name}: this server keeps no responses", name, code, hint)
        try:
            json.dumps(self.echo, allow_nan=False)
        except ValueError as error:
            raise RequestError("a number in the request is infinite: a response that repeats it is no JSON") from error
        return self

    @property
    def contents(self) -> list[tuple[str, object]]:
        """Where images may stand, with its name."""
        return [("input", self.input)]

    @property
    def echo(self) -> dict[str, Any]:
        """What a response repeats of its request."""
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": self.effort.value, "summary": None},
            "store": False,
            "temperature": self.temperature,
            "text": {"format": (self.text.format if self.text else None) or {"type": "text"}},
            "tool_choice": "auto" if self.tool_choice is None else self.tool_choice,
            "tools": self.tools or [],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": self.top_p,
            "truncation": "disabled",
        }

    def turn(self, defaults: SamplingParams, now: datetime) -> tuple[Turn, tuple[str, ...]]:
        """What is to be answered, and notes on what of it was left out. `defaults` are the model's for this effort.

        Raises RequestError.
        """
        tools, tool_notes = read_tools(self.tools)
        messages, item_notes = self._messages()
        conversation = Conversation(
            messages,
            now,
            self.effort,
            tools,
            read_choice(self.tool_choice, tools),
            self.parallel_tool_calls is not False,
        )
        response_format = read_format(self.text.format if self.text else None, "text.format")
        params = self.sampling(defaults, self.max_output_tokens)
        if self.top_logprobs is not None or _LOGPROBS in (self.include or ()):
            params = replace(params, num_logprobs=self.top_logprobs or 0)
        return Turn(conversation, params, (), response_format), (*tool_notes, *item_notes)

    def _messages(self) -> tuple[tuple[Message, ...], tuple[str, ...]]:
        """An empty input is a probe: it gets an answer too."""
        system = [Message(Role.SYSTEM, self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return (*system, Message(Role.USER, self.input)), ()
        given, notes = read_items(self.input)
        return (*system, *(given or (Message(Role.USER),))), notes


def read_items(items: Sequence[Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Messages, and notes on items of unknown types. What the assistant thought, said and called in a row is one."""
    messages: list[Message] = []
    notes: list[str] = []
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise RequestError(f"input.{i}: expected an object, found {type(item).__name__}", "input")
        kind = str(item.get("type") or "message")
        if kind == "item_reference":
            raise RequestError(f"input.{i}: this server keeps no items", "input", hint="send the item itself")
        if kind not in _READERS:
            notes.append(f"input item {i} of type {kind!r} was left out")
            continue
        for message in _READERS[kind](item, f"input.{i}"):
            if messages and _continues(messages[-1], message):
                messages[-1] = _together(messages[-1], message)
            else:
                messages.append(message)
    return tuple(messages), tuple(notes)


def _continues(last: Message, message: Message) -> bool:
    """Thinking comes before what it led to, calls come after the words."""
    is_both = last.role is message.role is Role.ASSISTANT
    return is_both and not message.thinking and not (last.tool_calls and message.content)


def _together(last: Message, message: Message) -> Message:
    said, calls = last.content + message.content, last.tool_calls + message.tool_calls
    images = last.images + shifted(message.images, len(last.content))
    return Message(Role.ASSISTANT, said, last.thinking, calls, images=images)


def _message(item: Mapping[str, Any], field: str) -> Iterator[Message]:
    role = item.get("role")
    if role not in _ROLES:
        raise RequestError(f"{field}.role: expected one of {', '.join(_ROLES)}, found {str(role)[:80]!r}", field)
    content = read_content(item.get("content"), f"{field}.content")
    thinking = content.thinking if role == "assistant" else ""
    yield Message(Role(role), content.text, thinking, images=content.images)


def _reasoning(item: Mapping[str, Any], field: str) -> Iterator[Message]:
    """What the item says itself, else what we sealed into it, else its summary."""
    said = read_thinking(item.get("content"), f"{field}.content")
    summary = read_thinking(item.get("summary"), f"{field}.summary")
    if thinking := said or unsealed(item.get("encrypted_content")) or summary:
        yield Message(Role.ASSISTANT, thinking=thinking)


def _function_call(item: Mapping[str, Any], field: str) -> Iterator[Message]:
    name = item.get("name")
    if not isinstance(name, str):
        raise RequestError(f"{field}: a function_call has no name", field)
    call = ToolCall(str(item.get("call_id") or ""), name, str(arguments_text(item.get("arguments"))))
    yield Message(Role.ASSISTANT, tool_calls=(call,))


def _function_output(item: Mapping[str, Any], field: str) -> Iterator[Message]:
    content = read_content(item.get("output"), f"{field}.output")
    yield Message(Role.TOOL, content.text, tool_call_id=str(item.get("call_id") or ""), images=content.images)


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], Iterator[Message]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _function_output,
}
