"""Mistral's client."""

from __future__ import annotations

import json
from typing import Any

from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.e2e.clients import turns
from tests.e2e.clients.openai_turns import OpenAITurns


class MistralClient(OpenAITurns):
    FORCED = "any"

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = Mistral(api_key="none", server_url=url, timeout_ms=60_000)

    def streamed(self) -> None:
        with self._client.chat.stream(**_body(turns.OPPOSITE)) as stream:
            pieces = [event.data.choices[0].delta.content or "" for event in stream]
        turns.check("".join(map(str, pieces)), "cold")

    def tools_parallel(self) -> None:
        tools = turns.openai_tools(turns.PHONE)
        self._calls(self._ask(turns.CALL_TWO, tools=tools), "Yara", "Clara")
        with self._client.chat.stream(**_body(turns.CALL_TWO), tools=tools) as stream:
            deltas = [call for event in stream for call in event.data.choices[0].delta.tool_calls or ()]
        told: dict[int, list[str]] = {}
        for delta in deltas:
            name_and_arguments = told.setdefault(delta.index or 0, ["", ""])
            name_and_arguments[0] += delta.function.name
            name_and_arguments[1] += str(delta.function.arguments)
        turns.check(len(told), 2)
        for (name, arguments), person in zip(told.values(), ("Yara", "Clara"), strict=True):
            turns.check_call(name, arguments, {"name": person})

    def json_schema(self) -> None:
        schema = {"name": "place", "schema_definition": turns.CITY_SCHEMA, "strict": True}
        message = self._ask(turns.JSON, response_format={"type": "json_schema", "json_schema": schema})
        turns.check(json.loads(str(message.content)), turns.CITY)

    def thinking(self) -> None:
        """This client keeps thinking only as chunks: the server runs with thinking_field = "content"."""
        body = {**_body(turns.SUM), "reasoning_effort": "high"}
        thought, said = self._client.chat.complete(**body).choices[0].message.content
        turns.check((said.text, bool(thought.thinking[0].text)), ("87", True))
        with self._client.chat.stream(**body) as stream:
            contents = [event.data.choices[0].delta.content for event in stream]
        told = [chunk.thinking[0].text for content in contents if isinstance(content, list) for chunk in content]
        turns.check("".join(told), thought.thinking[0].text)

    def cancel(self) -> None:
        with self._client.chat.stream(
            **{**_body(turns.JSON), "max_tokens": 8000, "response_format": _ENDLESS}
        ) as stream:
            next(iter(stream))
        turns.until_idle(self._url)

    def error(self) -> None:
        try:
            self._ask(turns.TOO_LONG)
        except SDKError as error:
            turns.check((error.status_code, "context length" in error.body), (400, True))
        else:
            raise AssertionError("too long a prompt was answered")

    def _ask(self, question: object, **more: Any) -> Any:
        return self._client.chat.complete(**_body(question), **more).choices[0].message

    def _calls(self, message: Any, *names: str) -> None:
        calls = message.tool_calls or []
        turns.check(len(calls), len(names))
        for call, name in zip(calls, names, strict=True):
            turns.check_call(call.function.name, call.function.arguments, {"name": name})


# A list that may not end early: this client has no way to say ignore_eos.
_ENDLESS = {
    "type": "json_schema",
    "json_schema": {
        "name": "long",
        "schema_definition": {"type": "array", "items": {"type": "string", "minLength": 900}, "minItems": 900},
    },
}


def _body(question: object) -> dict[str, Any]:
    return {"model": "any", "messages": turns.user(question), "temperature": 0, "max_tokens": 96}


if __name__ == "__main__":
    turns.run(MistralClient)
