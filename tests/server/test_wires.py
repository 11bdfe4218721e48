"""The same turn on every wire: as recorded, and the stream says what the whole says."""

from __future__ import annotations

import json
from typing import Any

from tests.server.golden_wires import GOLDEN, wires


def _payloads(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


async def test_the_wires_are_as_recorded() -> None:
    assert await wires() == json.loads(GOLDEN.read_text("utf-8"))


async def test_streams_say_what_the_wholes_say() -> None:
    found = await wires()
    _chat(**found["/v1/chat/completions"])
    _messages(**found["/v1/messages"])
    assert _payloads(found["/v1/responses"]["stream"])[-1]["response"] == found["/v1/responses"]["whole"]


def _chat(whole: dict[str, Any], stream: list[str]) -> None:
    message, deltas = whole["choices"][0]["message"], []
    for payload in _payloads(stream):
        deltas += [choice["delta"] for choice in payload["choices"]]
    for field in ("content", "reasoning_content"):
        assert "".join(delta.get(field, "") for delta in deltas) == message[field]
    functions = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    told = {key: "".join(function[key] for function in functions) for key in ("name", "arguments")}
    assert told == message["tool_calls"][0]["function"]
    assert _payloads(stream)[-1]["usage"] == whole["usage"]


def _messages(whole: dict[str, Any], stream: list[str]) -> None:
    payloads = _payloads(stream)
    for index, block in enumerate(whole["content"]):
        deltas = [
            each["delta"] for each in payloads if each["type"] == "content_block_delta" and each["index"] == index
        ]
        if block["type"] == "tool_use":
            assert json.loads("".join(delta["partial_json"] for delta in deltas)) == block["input"]
        else:
            field = block["type"]
            assert "".join(delta.get(field, "") for delta in deltas) == block[field]
    assert payloads[-2]["usage"] == whole["usage"]
    assert payloads[-2]["delta"]["stop_reason"] == whole["stop_reason"]
