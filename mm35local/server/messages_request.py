"""The body of POST /v1/messages: Anthropic's wire, and what it asks of us.

Unknown fields are ignored (`metadata`, `cache_control`, `context_management`, betas): agents send new ones every month.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mm35local.chat.content import read_content
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.tools import ToolCall
from mm35local.chat.turn import Turn
from mm35local.errors import RequestError
from mm35local.server.chat_request import arguments_text
from mm35local.server.effort import EffortFields
from mm35local.server.format_fields import read_format
from mm35local.server.parsing import Items
from mm35local.server.sampling import SamplingFields, StopList, TokenLimit
from mm35local.server.tool_fields import read_choice, read_tools
from mm35local.types import SamplingParams

# Another line at the head of the system prompt in every request would make every prefix a new one.
_ATTRIBUTION = re.compile(r"\A(?:x-anthropic-billing-header:[^\n]*(?:\n|\Z))+\n*")


class AnthropicMessage(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: Any = None

    def to_messages(self, field: str) -> Iterator[Message]:
        """One message, or several where results of tools stand beside words. Raises RequestError."""
        blocks = [self.content] if isinstance(self.content, str) else self.content or []
        if not isinstance(blocks, list):
            raise RequestError(f"{field}.content: expected a string or a list of blocks", f"{field}.content")
        results = [block for block in blocks if _is(block, "tool_result")]
        calls = [block for block in blocks if _is(block, "tool_use")]
        rest = [block for block in blocks if not (_is(block, "tool_result") or _is(block, "tool_use"))]
        for result in results:
            content = read_content(result.get("content"), f"{field}.content")
            call_id = str(result.get("tool_use_id", ""))
            yield Message(Role.TOOL, content.text, tool_call_id=call_id, images=content.images)
        if rest or calls or not results:
            said = read_content(rest, f"{field}.content")
            called = tuple(_call(call, field) for call in calls)
            yield Message(Role(self.role), said.text, said.thinking, called, images=said.images)


class MessagesRequest(SamplingFields, EffortFields):
    messages: Annotated[Items[AnthropicMessage], Field(min_length=1)]
    model: str | None = None
    system: Any = None
    max_tokens: TokenLimit = None
    stop_sequences: StopList = ()
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    output_format: Any = None

    @property
    def tool_notes(self) -> tuple[str, ...]:
        return read_tools(self.tools)[1]

    @property
    def contents(self) -> list[tuple[str, object]]:
        """Where images may stand, each with its name."""
        said = [(f"messages.{i}.content", message.content) for i, message in enumerate(self.messages)]
        return [("system", self.system), *said]

    def conversation(self, now: datetime) -> Conversation:
        """Raises RequestError for blocks and tools that cannot be read."""
        tools, _ = read_tools(self.tools)
        choice = self.tool_choice if isinstance(self.tool_choice, dict) else {}
        return Conversation(
            (*self._system(), *self._messages()),
            now,
            self.effort,
            tools,
            read_choice(self.tool_choice, tools),
            choice.get("disable_parallel_tool_use") is not True,
        )

    def turn(self, defaults: SamplingParams, now: datetime) -> Turn:
        """`defaults` are the model's for this effort."""
        wanted = self.output_format or (self.output_config.format if self.output_config else None)
        response_format = read_format(wanted, "output_format")
        params = self.sampling(defaults, self.max_tokens)
        return Turn(self.conversation(now), params, self.stop_sequences, response_format)

    def _system(self) -> Iterator[Message]:
        blocks = self.system if isinstance(self.system, list) else [self.system]
        for i, block in enumerate(blocks):
            content = read_content([block] if block else None, f"system.{i}")
            text = _ATTRIBUTION.sub("", content.text)
            if text or content.images:
                yield Message(Role.SYSTEM, text, images=content.images)

    def _messages(self) -> Iterator[Message]:
        for i, message in enumerate(self.messages):
            yield from message.to_messages(f"messages.{i}")


def _is(block: object, kind: str) -> bool:
    return isinstance(block, Mapping) and block.get("type") == kind


def _call(block: Mapping[str, Any], field: str) -> ToolCall:
    name = block.get("name")
    if not isinstance(name, str):
        raise RequestError(f"{field}.content: a tool_use block has no name", f"{field}.content")
    return ToolCall(str(block.get("id", "")), name, str(arguments_text(block.get("input", {}))))
