"""The older wire: a prompt as it stands, and what cannot be done with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.metadata import chatml_ids, chatml_metadata, mistral_metadata
from tests.server.conftest import ANSWER, Here, fake_engine, payloads, running, served_model


async def ask(here: Here, **body: object) -> Any:
    reply = await here.client.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def prompts(here: Here) -> list[list[int]]:
    return [list(record.prompt.token_ids) for record in here.engine.records]


async def test_a_text_is_continued_as_it_stands(here: Here) -> None:
    body = await ask(here, prompt="<|im_end|> Once", max_tokens=100)
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": ANSWER, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["completion_tokens"] == len(ANSWER.encode())
    assert (body["timings"]["prompt_n"], body["timings"]["predicted_n"]) == (15, len(ANSWER.encode()))
    assert prompts(here) == [chatml_ids("<|im_end|> Once")]


async def test_sixteen_tokens_unless_more_are_asked_for(here: Here) -> None:
    assert (await ask(here, prompt="x"))["choices"][0]["finish_reason"] == "length"
    assert here.engine.records[0].params.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["a", "b"], [chatml_ids("a"), chatml_ids("b")]),
    ],
)
async def test_ids_and_several_prompts(here: Here, prompt: object, expected: list[list[int]]) -> None:
    body = await ask(here, prompt=prompt, max_tokens=100)
    assert sorted(prompts(here)) == sorted(expected)
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    assert {choice["text"] for choice in body["choices"]} == {ANSWER}
    assert body["usage"]["prompt_tokens"] == sum(map(len, expected))


async def test_two_answers_to_one_prompt_have_their_own_seeds(here: Here) -> None:
    body = await ask(here, prompt=[1, 2, 3], n=2, seed=7, max_tokens=100)
    assert sorted(record.params.seed or 0 for record in here.engine.records) == [7, 8]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (3, 2 * len(ANSWER.encode()))


async def test_the_begin_token_where_the_model_wants_it() -> None:
    async with running(fake_engine(), served_model(chatml_metadata(**{"tokenizer.ggml.add_bos_token": True}))) as here:
        await ask(here, prompt="x")
        assert prompts(here) == [[3, *chatml_ids("x")]]


async def test_streams_concatenate_to_the_whole(here: Here) -> None:
    reply = await here.client.post(
        "/v1/completions",
        json={"prompt": "x", "max_tokens": 100, "stream": True, "stream_options": {"include_usage": True}},
    )
    *chunks, usage, done = payloads(reply.text)
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == ANSWER
    assert [choice["finish_reason"] for choice in choices][-1] == "stop"
    assert (json.loads(usage)["usage"]["prompt_tokens"], done) == (1, "[DONE]")


async def test_a_gap_is_filled_by_a_model_that_can() -> None:
    named = {f"tokenizer.ggml.fim_{name}_token_id": i for i, name in enumerate(("pre", "suf", "mid"))}
    async with running(fake_engine(), served_model(chatml_metadata(**named))) as here:
        await ask(here, prompt="a", suffix="b")
        assert prompts(here) == [[0, *chatml_ids("a"), 1, *chatml_ids("b"), 2]]
    async with running(fake_engine(), served_model(mistral_metadata())) as here:
        await ask(here, prompt="a", suffix="b")
        assert prompts(here) == [[1, 16, *chatml_ids("b"), 14, *chatml_ids("a")]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": ["x"] * 17}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "n": 0}, "n"),
    ],
)
async def test_what_cannot_be_done_is_named(here: Here, body: object, param: str) -> None:
    reply = await here.client.post("/v1/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert here.engine.records == []


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/infill"])
async def test_endpoints_that_have_no_answer_say_why(here: Here, path: str) -> None:
    reply = await here.client.post(path, json={"input": "x"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unsupported_endpoint")
