"""What a chat template is given for a conversation: messages and tools as OpenAI's wire writes them.

Every text that came from outside goes through one function, which keeps it from being read as control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mm35local.chat.messages import Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.tools import Tool, ToolCall

Shield = Callable[[str], str]


def message_variables(message: Message, shield: Shield) -> dict[str, Any]:
    variables: dict[str, Any] = {"role": message.role.value, "content": shield(message.content)}
    if message.thinking:
        variables["reasoning_content"] = shield(message.thinking)
    if message.tool_calls:
        variables["tool_calls"] = [_call(call, shield) for call in message.tool_calls]
    if message.role is Role.TOOL:
        variables |= {"tool_call_id": message.tool_call_id, "name": shield(message.name)}
    return variables


def tool_variables(tool: Tool, shield: Shield) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": _each_text(described, shield)}


def _call(call: ToolCall, shield: Shield) -> dict[str, Any]:
    """Arguments as an object: templates write them as JSON themselves."""
    function = {"name": call.name, "arguments": json.loads(call.arguments)}
    return {"id": call.id, "type": "function", "function": _each_text(function, shield)}


def _each_text(value: Any, shield: Shield) -> Any:
    if isinstance(value, str):
        return shield(value)
    if isinstance(value, Mapping):
        return {shield(str(key)): _each_text(inner, shield) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(inner, shield) for inner in value]
    return value


def all_texts(messages: Sequence[Message], tools: Sequence[Tool]) -> Iterator[str]:
    """Every text from outside; in JSON other characters may be escaped, but none of a private use area."""
    for message in messages:
        yield from (message.content, message.thinking, message.name)
        for call in message.tool_calls:
            yield from (call.name, json.dumps(json.loads(call.arguments), ensure_ascii=False))
    for tool in tools:
        yield from (tool.description, json.dumps(dict(tool.parameters), ensure_ascii=False))


def without_tools(messages: Sequence[Message]) -> tuple[Message, ...]:
    """For templates that know no tools: calls become the assistant's words and results the user's."""
    return normalize([_told(message) for message in messages]).messages


def _told(message: Message) -> Message:
    if message.role is Role.TOOL:
        return Message(Role.USER, f"Result of {message.name}:\n{message.content}")
    calls = "\n".join(f"{call.name}({call.arguments})" for call in message.tool_calls)
    content = "\n\n".join(filter(None, (message.content, calls)))
    return Message(message.role, content, message.thinking)
