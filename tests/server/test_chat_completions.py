from __future__ import annotations

import json
from typing import Any

import pytest

from mm35local.chat.messages import Effort
from mm35local.types import SamplingParams
from tests.fakes.engine import Script
from tests.fakes.metadata import chatml_ids, mistral_metadata
from tests.server.conftest import ANSWER, SAMPLING, Here, fake_engine, payloads, running, script, served_model

NUM_PROMPT_TOKENS = 21
USAGE = {
    "prompt_tokens": NUM_PROMPT_TOKENS,
    "completion_tokens": len(ANSWER.encode()),
    "total_tokens": NUM_PROMPT_TOKENS + len(ANSWER.encode()),
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


async def test_an_answer_in_one_piece(here: Here) -> None:
    body = (await here.chat()).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "test-model"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == USAGE


async def test_usage_and_timings_tell_what_was_guessed() -> None:
    async with running(fake_engine(Script(script().steps, num_drafted=7, num_accepted=5))) as here:
        body = (await here.chat(timings_per_token=True)).json()
    details = body["usage"]["completion_tokens_details"]
    assert details == {"reasoning_tokens": 0, "accepted_prediction_tokens": 5, "rejected_prediction_tokens": 2}
    assert (body["timings"]["draft_n"], body["timings"]["draft_n_accepted"]) == (7, 5)


async def test_a_stream_says_the_role_first_and_done_last(here: Here) -> None:
    reply = await here.chat(stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, usage, done = payloads(reply.text)
    parsed = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in parsed) == ANSWER
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed] == [None] * (len(parsed) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in parsed}) == 1
    assert (json.loads(usage)["choices"], json.loads(usage)["usage"]) == ([], USAGE)


async def test_a_stream_has_usage_only_when_asked(here: Here) -> None:
    assert "usage" not in (await here.chat(stream=True)).text


async def test_thinking_has_its_own_field() -> None:
    think = Script(((34, 1000 + ord("h")), (1000 + ord("m"), 35), (1000 + ord("4"),)))
    model = served_model()
    engine = fake_engine(think)
    async with running(engine, served_model(mistral_metadata())) as here:
        message = (await here.chat(reasoning_effort="high")).json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("hm", "4")
        deltas = [
            json.loads(chunk)["choices"][0]["delta"]
            for chunk in payloads((await here.chat(reasoning_effort="high", stream=True)).text)[:-1]
        ]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
    assert engine.records[0].params == model.sampling[Effort.HIGH]
    assert b'{"reasoning_effort": "high"}'.hex() in _prompt_bytes(engine.records[0].prompt.token_ids)


def _prompt_bytes(token_ids: tuple[int, ...]) -> str:
    from mm35local.chat.vocabulary import Vocabulary

    vocabulary = Vocabulary.from_metadata(mistral_metadata(), "x")
    return b"".join(map(vocabulary.token_bytes, token_ids)).hex()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, SAMPLING[Effort.NONE]),
        ({"reasoning_effort": "low"}, SAMPLING[Effort.NONE]),
        ({"reasoning_effort": "medium"}, SAMPLING[Effort.HIGH]),
        ({"temperature": 0, "top_p": 0.5, "seed": 7}, SamplingParams(temperature=0, top_p=0.5, seed=7)),
        ({"max_tokens": 5}, SamplingParams(temperature=0.15, max_tokens=5)),
        ({"max_completion_tokens": 5}, SamplingParams(temperature=0.15, max_tokens=5)),
        ({"max_tokens": -1, "top_k": -1}, SamplingParams(temperature=0.15)),
        ({"top_k": 40, "min_p": 0.1}, SamplingParams(temperature=0.15, top_k=40, min_p=0.1)),
        ({"repeat_penalty": 1.1}, SamplingParams(temperature=0.15, repetition_penalty=1.1)),
        (
            {"presence_penalty": 1, "frequency_penalty": -1, "seed": -1},
            SamplingParams(temperature=0.15, presence_penalty=1, frequency_penalty=-1, seed=2**32 - 2),
        ),
        ({"ignore_eos": True}, SamplingParams(temperature=0.15, ignore_eos=True)),
        ({"temperature": None, "n": 1, "tools": [], "stop": None, "user": "me", "store": False}, SAMPLING[Effort.NONE]),
    ],
)
async def test_what_is_asked_reaches_the_engine(here: Here, body: dict[str, Any], expected: SamplingParams) -> None:
    reply = await here.chat(**body)
    assert reply.status_code == 200, reply.text
    assert here.engine.records[0].params == expected


@pytest.mark.parametrize("stop", ["wör", ["xyz", "wör"]])
async def test_stop_strings(here: Here, stop: object) -> None:
    choice = (await here.chat(stop=stop)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello, ", "stop")
    assert here.engine.records[0].is_cancelled


async def test_max_tokens_end_with_length(here: Here) -> None:
    body = (await here.chat(max_tokens=4)).json()
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("Hell", "length")
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "Hi"}, {"type": "text", "text": " you", "cache_control": {}}], "Hi you"),
        ([], ""),
        (None, ""),
        ("<|im_end|>", "<|im_end|>"),
        ("\ud83d", "\ufffd"),
    ],
)
async def test_contents_that_clients_send(here: Here, content: object, seen: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": content}]})
    reply = await here.client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 200, reply.text
    expected = [1, *chatml_ids(f"user\n{seen}"), 2, *chatml_ids("\n"), 1, *chatml_ids("assistant\n")]
    assert list(here.engine.records[0].prompt.token_ids) == expected


async def test_a_history_with_reasoning_keeps_it() -> None:
    engine = fake_engine(script())
    messages = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A", "reasoning_content": "hm"},
        {"role": "user", "content": "V"},
    ]
    async with running(engine, served_model(mistral_metadata())) as here:
        assert (await here.client.post("/v1/chat/completions", json={"messages": messages})).status_code == 200
    controls = [token for token in engine.records[0].prompt.token_ids if token < 1000]
    assert controls == [1, 17, 18, 36, 37, 3, 4, 34, 35, 2, 3, 4]


async def test_an_effort_the_model_lacks_is_said(here: Here) -> None:
    assert "reasoning_effort was not used" in (await here.chat(reasoning_effort="high")).headers["x-mm35-note"]
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert "knows no tools" in (await here.chat(tools=tools)).headers["x-mm35-note"]
    assert "x-mm35-note" not in (await here.chat(reasoning_effort="none")).headers


async def test_a_schema_beside_json_object_is_enforced_as_llama_cpp_does(here: Here) -> None:
    schema = {"type": "object", "properties": {"horse_power": {"type": "integer"}}}
    await here.chat(response_format={"type": "json_object", "schema": schema})
    await here.chat(response_format={"type": "json_object"})
    with_schema, without = (record.params.grammar for record in here.engine.records)
    assert with_schema is not None
    assert without is not None
    assert ("horse_power" in with_schema.lark, "horse_power" in without.lark) == (True, False)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_sampler_that_is_not_known_here_leaves_a_note_unless_it_would_do_nothing(here: Here, path: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"}
    idle = {"dry_multiplier": 0, "typical_p": 1.0, "mirostat": None, "xtc_probability": 0.0}
    assert "x-mm35-note" not in (await here.client.post(path, json={**body, **idle})).headers
    asked = await here.client.post(path, json={**body, **idle, "mirostat": 2, "dry_multiplier": 0.8})
    assert asked.status_code == 200
    note = asked.headers["x-mm35-note"]
    assert all(name in note for name in ("mirostat", "dry_multiplier"))
    assert "typical_p" not in note
