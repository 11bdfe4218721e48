"""Anthropic's client."""

from __future__ import annotations

import json
from typing import Any

import anthropic
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock

from tests.e2e.clients import turns


class AnthropicClient:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=60)

    def plain(self) -> None:
        turns.check(_text(self._ask(turns.OPPOSITE)), "cold")

    def streamed(self) -> None:
        with self._client.messages.stream(**_body(turns.OPPOSITE)) as stream:
            pieces = list(stream.text_stream)
            turns.check(("".join(pieces), _text(stream.get_final_message())), ("cold", "cold"))

    def tools_auto(self) -> None:
        self._calls(self._ask(turns.CALL_ONE, tools=_tools(turns.PHONE)), "Clara")

    def tools_required(self) -> None:
        self._calls(self._ask(turns.CALL_ONE, tools=_tools(turns.PHONE), tool_choice={"type": "any"}), "Clara")

    def tools_named(self) -> None:
        tools = _tools(turns.PHONE, turns.WEATHER)
        choice = {"type": "tool", "name": "phone"}
        self._calls(self._ask(turns.CALL_ONE, tools=tools, tool_choice=choice), "Clara")

    def tools_parallel(self) -> None:
        self._calls(self._ask(turns.CALL_TWO, tools=_tools(turns.PHONE)), "Yara", "Clara")
        with self._client.messages.stream(**_body(turns.CALL_TWO) | {"tools": _tools(turns.PHONE)}) as stream:
            self._calls(stream.get_final_message(), "Yara", "Clara")

    def json_schema(self) -> None:
        output = {"format": {"type": "json_schema", "schema": turns.CITY_SCHEMA}}
        turns.check(json.loads(_text(self._ask(turns.JSON, output_config=output))), turns.CITY)

    def image(self) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": turns.RED_PNG}
        question = [{"type": "image", "source": source}, {"type": "text", "text": turns.COLOUR}]
        turns.check(_text(self._ask(question)), "red")

    def thinking(self) -> None:
        body = {**_body(turns.SUM), "max_tokens": 2048}
        message = self._client.messages.create(**body, thinking={"type": "enabled", "budget_tokens": 1024})
        thoughts = [block.thinking for block in message.content if isinstance(block, ThinkingBlock)]
        turns.check((_text(message), any(thoughts)), ("87", True))

    def cancel(self) -> None:
        body = {**_body(turns.OPPOSITE, ignore_eos=True), "max_tokens": 8000}
        with self._client.messages.stream(**body) as stream:
            next(stream.text_stream)
        turns.until_idle(self._url)

    def error(self) -> None:
        try:
            self._ask(turns.TOO_LONG)
        except anthropic.BadRequestError as error:
            turns.check("prompt is too long" in str(error), True)
        else:
            raise AssertionError("too long a prompt was answered")

    def _ask(self, question: object, **more: Any) -> Message:
        message = self._client.messages.create(**_body(question), **more)
        if not isinstance(message, Message):
            raise AssertionError(f"expected a Message, found {type(message).__name__}")
        return message

    def _calls(self, message: Message, *names: str) -> None:
        calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
        turns.check((len(calls), message.stop_reason), (len(names), "tool_use"))
        for call, name in zip(calls, names, strict=True):
            turns.check_call(call.name, dict(call.input), {"name": name})


def _body(question: object, *, ignore_eos: bool = False) -> dict[str, Any]:
    greedy = {"temperature": 0, "ignore_eos": ignore_eos}
    return {"model": "any", "messages": turns.user(question), "max_tokens": 96, "extra_body": greedy}


def _tools(*tools: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]} for tool in tools
    ]


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


if __name__ == "__main__":
    turns.run(AnthropicClient)
