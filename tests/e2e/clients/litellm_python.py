"""LiteLLM, as aider and many gateways use it."""

from __future__ import annotations

import json
from typing import Any

import litellm

from tests.e2e.clients import turns
from tests.e2e.clients.openai_turns import OpenAITurns


class LiteLLMClient(OpenAITurns):
    def __init__(self, url: str) -> None:
        self._url = url

    def streamed(self) -> None:
        chunks = list(litellm.completion(**self._body(turns.OPPOSITE), stream=True))
        turns.check("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "cold")

    def tools_parallel(self) -> None:
        tools = turns.openai_tools(turns.PHONE)
        self._calls(self._ask(turns.CALL_TWO, tools=tools), "Yara", "Clara")
        chunks = list(litellm.completion(**self._body(turns.CALL_TWO), tools=tools, stream=True))
        self._calls(litellm.stream_chunk_builder(chunks).choices[0].message, "Yara", "Clara")

    def json_schema(self) -> None:
        schema = {"name": "place", "schema": turns.CITY_SCHEMA, "strict": True}
        message = self._ask(turns.JSON, response_format={"type": "json_schema", "json_schema": schema})
        turns.check(json.loads(message.content), turns.CITY)

    def thinking(self) -> None:
        message = self._ask(turns.SUM, reasoning_effort="high", allowed_openai_params=["reasoning_effort"])
        turns.check((message.content, bool(message.reasoning_content)), ("87", True))

    def cancel(self) -> None:
        body = {**self._body(turns.OPPOSITE), "max_tokens": 8000, "extra_body": {"ignore_eos": True}}
        stream = litellm.completion(**body, stream=True)
        next(stream)
        stream.completion_stream.close()
        turns.until_idle(self._url)

    def error(self) -> None:
        try:
            self._ask(turns.TOO_LONG)
        except litellm.ContextWindowExceededError as error:
            turns.check(error.status_code, 400)
        else:
            raise AssertionError("too long a prompt was answered")

    def _ask(self, question: object, **more: Any) -> Any:
        return litellm.completion(**self._body(question), **more).choices[0].message

    def _calls(self, message: Any, *names: str) -> None:
        calls = message.tool_calls or []
        turns.check(len(calls), len(names))
        for call, name in zip(calls, names, strict=True):
            turns.check_call(call.function.name, call.function.arguments, {"name": name})

    def _body(self, question: object) -> dict[str, Any]:
        return {
            "model": "openai/any",
            "api_base": f"{self._url}/v1",
            "api_key": "none",
            "messages": turns.user(question),
            "temperature": 0,
            "max_tokens": 96,
            "num_retries": 0,
        }


if __name__ == "__main__":
    turns.run(LiteLLMClient)
