"""Log-probabilities and biases on every wire that has a place for them: asked for, told, the same streamed."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.fakes.engine import Script
from tests.fakes.metadata import chatml_ids, mistral_metadata
from tests.server.conftest import ANSWER, Here, fake_engine, payloads, running, served_model

THINK = (34, *(1000 + byte for byte in b"hm"), 35, *(1000 + byte for byte in "wö".encode()))


@pytest.fixture
async def thinking() -> AsyncGenerator[Here, None]:
    async with running(fake_engine(Script((THINK,))), served_model(mistral_metadata())) as here:
        yield here


def spoken(entries: list[dict[str, Any]]) -> str:
    return bytes(byte for entry in entries for byte in entry["bytes"]).decode()


async def test_chat_tells_each_token_of_the_text(here: Here) -> None:
    choice = (await here.chat(logprobs=True, top_logprobs=2)).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert spoken(entries) == choice["message"]["content"] == ANSWER
    assert entries[0] == {
        "token": "H",
        "logprob": -0.5,
        "bytes": [72],
        "top_logprobs": [
            {"token": "H", "logprob": -0.5, "bytes": [72]},
            {"token": "G", "logprob": -0.5 - math.log(2), "bytes": [71]},
        ],
    }
    assert here.engine.records[0].params.num_logprobs == 2


async def test_a_stream_tells_the_same(here: Here) -> None:
    whole = (await here.chat(logprobs=True, top_logprobs=1)).json()["choices"][0]["logprobs"]["content"]
    stream = payloads((await here.chat(logprobs=True, top_logprobs=1, stream=True)).text)
    choices = [json.loads(chunk)["choices"][0] for chunk in stream[:-1]]
    assert [entry for choice in choices for entry in (choice["logprobs"] or {"content": []})["content"]] == whole


async def test_thinking_has_none(thinking: Here) -> None:
    choice = (await thinking.chat(logprobs=True, reasoning_effort="high")).json()["choices"][0]
    assert spoken(choice["logprobs"]["content"]) == choice["message"]["content"] == "wö"
    assert choice["message"]["reasoning_content"] == "hm"


@pytest.mark.parametrize("body", [{}, {"logprobs": False}, {"logprobs": None, "top_logprobs": 0}])
async def test_nobody_pays_for_what_is_not_asked(here: Here, body: dict[str, Any]) -> None:
    assert (await here.chat(**body)).json()["choices"][0]["logprobs"] is None
    assert here.engine.records[0].params.num_logprobs is None


async def test_completions_tell_four_columns(here: Here) -> None:
    ask = {"prompt": "x", "max_tokens": 100, "logprobs": 1}
    choice = (await here.client.post("/v1/completions", json=ask)).json()["choices"][0]
    columns = choice["logprobs"]
    assert {len(column) for column in columns.values()} == {len(ANSWER.encode())}
    assert columns["tokens"][:2] == ["H", "e"]
    assert columns["top_logprobs"][0] == {"H": -0.5}
    assert columns["text_offset"][8:11] == [8, 9, 9], "ö is two tokens and one character"
    stream = payloads((await here.client.post("/v1/completions", json={**ask, "stream": True})).text)
    pieces = [json.loads(chunk)["choices"][0]["logprobs"] for chunk in stream[:-1]]
    for name, column in columns.items():
        assert [value for piece in pieces if piece for value in piece[name]] == column


async def test_responses_tell_them_in_their_part(here: Here) -> None:
    ask = {"input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    part = (await here.client.post("/v1/responses", json=ask)).json()["output"][0]["content"][0]
    assert spoken(part["logprobs"]) == part["text"] == ANSWER
    stream = payloads((await here.client.post("/v1/responses", json={**ask, "stream": True})).text)
    deltas = [event for event in map(json.loads, stream) if event["type"] == "response.output_text.delta"]
    assert [entry for delta in deltas for entry in delta["logprobs"]] == part["logprobs"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/chat/completions", {"top_logprobs": 2}, "top_logprobs"),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ("/v1/chat/completions", {"logprobs": 3}, "logprobs"),
        ("/v1/chat/completions", {"logit_bias": {"5": 101}}, "logit_bias.5"),
        ("/v1/chat/completions", {"logit_bias": {"the": 1}}, "logit_bias.the.[key]"),
        ("/v1/completions", {"prompt": "x", "logprobs": 99}, "logprobs"),
        ("/v1/completions", {"prompt": "x", "logit_bias": {"-1": 1}}, "logit_bias.-1.[key]"),
    ],
)
async def test_nonsense_is_refused_by_name(here: Here, path: str, body: dict[str, Any], field: str) -> None:
    reply = await here.client.post(path, json={"messages": [{"role": "user", "content": "Hi"}], **body})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] in (field, field.removesuffix(".[key]"))


async def test_a_bias_reaches_the_engine(here: Here) -> None:
    await here.chat(logit_bias={"5": -100, "6": 1.5})
    await here.client.post("/v1/completions", json={"prompt": "x", "logit_bias": {"7": 2}})
    assert [record.params.logit_bias for record in here.engine.records] == [((5, -100.0), (6, 1.5)), ((7, 2.0),)]


async def test_a_stop_string_ends_the_scores_too(here: Here) -> None:
    choice = (await here.chat(logprobs=True, stop="wörld")).json()["choices"][0]
    told = spoken(choice["logprobs"]["content"])
    assert (choice["message"]["content"], told) == ("Hello, ", "Hello, wörld")
    assert len(chatml_ids(told)) < len(chatml_ids(ANSWER))
