"""Histories as clients write them on OpenAI's wire, read into ours: what the golden files hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mm35local.chat.content import read_content, read_thinking
from mm35local.chat.messages import Message, Role
from mm35local.chat.tools import Tool, ToolCall


def message(wire: Mapping[str, Any]) -> Message:
    content = read_content(wire.get("content"), "content")
    thinking = read_thinking(wire.get("reasoning_content") or wire.get("reasoning"), "reasoning") + content.thinking
    calls = tuple(
        ToolCall(call.get("id") or "", call["function"]["name"], call["function"]["arguments"])
        for call in wire.get("tool_calls") or ()
    )
    call_id = wire.get("tool_call_id") or ""
    return Message(Role(wire["role"]), content.text, thinking, calls, call_id, wire.get("name") or "")


def as_wire(message: Message) -> dict[str, Any]:
    """What mistral-common reads; thinking as its chunks."""
    text = [{"type": "text", "text": message.content}] if message.content else []
    think = [{"type": "thinking", "thinking": message.thinking}] if message.thinking else []
    wire: dict[str, Any] = {"role": message.role.value, "content": [*think, *text] if think else message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role is Role.TOOL:
        wire |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return wire


def tool(wire: Mapping[str, Any]) -> Tool:
    function = wire["function"]
    return Tool(function["name"], function.get("description", ""), function.get("parameters", {}))
