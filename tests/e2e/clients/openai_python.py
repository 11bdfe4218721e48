"""OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessage, ChatCompletionMessageFunctionToolCall

from tests.e2e.clients import turns
from tests.e2e.clients.openai_turns import OpenAITurns


class OpenAIClient(OpenAITurns):
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

    def streamed(self) -> None:
        with self._client.chat.completions.stream(**_body(turns.OPPOSITE)) as stream:
            turns.check(stream.get_final_completion().choices[0].message.content, "cold")

    def tools_parallel(self) -> None:
        tools = turns.openai_tools(turns.PHONE)
        self._calls(self._ask(turns.CALL_TWO, tools=tools), "Yara", "Clara")
        with self._client.chat.completions.stream(**_body(turns.CALL_TWO), tools=tools) as stream:  # type: ignore[arg-type]
            self._calls(stream.get_final_completion().choices[0].message, "Yara", "Clara")

    def json_schema(self) -> None:
        schema = {"name": "place", "schema": turns.CITY_SCHEMA, "strict": True}
        message = self._ask(turns.JSON, response_format={"type": "json_schema", "json_schema": schema})
        turns.check(json.loads(message.content or ""), turns.CITY)

    def thinking(self) -> None:
        message = self._ask(turns.SUM, reasoning_effort="high")
        turns.check((message.content, bool(getattr(message, "reasoning_content", ""))), ("87", True))

    def cancel(self) -> None:
        endless = self._client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": turns.OPPOSITE}],
            stream=True,
            extra_body={"ignore_eos": True},
        )
        with endless:
            next(iter(endless))
        turns.until_idle(self._url)

    def error(self) -> None:
        try:
            self._ask(turns.TOO_LONG)
        except openai.BadRequestError as error:
            turns.check((error.code, error.param), ("context_length_exceeded", "messages"))
        else:
            raise AssertionError("too long a prompt was answered")

    def _ask(self, question: object, **more: Any) -> ChatCompletionMessage:
        completion: ChatCompletion = self._client.chat.completions.create(**_body(question), **more)
        return completion.choices[0].message

    def _calls(self, message: ChatCompletionMessage, *names: str) -> None:
        calls = [call for call in message.tool_calls or () if isinstance(call, ChatCompletionMessageFunctionToolCall)]
        turns.check(len(calls), len(names))
        for call, name in zip(calls, names, strict=True):
            turns.check_call(call.function.name, call.function.arguments, {"name": name})


def _body(question: object) -> dict[str, Any]:
    return {"model": "any", "messages": turns.user(question), "temperature": 0, "max_tokens": 96}


if __name__ == "__main__":
    turns.run(OpenAIClient)
