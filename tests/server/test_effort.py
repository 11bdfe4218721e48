"""One switch under many names, and the server's own mind about sampling."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mm35local.chat.messages import Effort
from tests.fakes.engine import Script
from tests.fakes.metadata import mistral_metadata
from tests.server.conftest import SAMPLING, Here, fake_engine, mistral_text, payloads, running, served_model
from tests.server.test_messages import THINKS

HIGH: list[dict[str, Any]] = [
    {"reasoning_effort": "high"},
    {"reasoning_effort": "medium"},
    {"reasoning_mode": "deep"},
    {"reasoning": {"effort": "high", "summary": "auto"}},
    {"reasoning": {"enabled": True}},
    {"thinking": {"type": "enabled", "budget_tokens": 2048}},
    {"thinking": {"type": "adaptive"}},
    {"thinking": True},
    {"chat_template_kwargs": {"reasoning_effort": "high"}},
    {"chat_template_kwargs": {"enable_thinking": True}},
    {"enable_thinking": True},
]
NONE: list[dict[str, Any]] = [
    {},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal"},
    {"reasoning_effort": "low"},
    {"reasoning_effort": None, "reasoning": None, "thinking": None},
    {"reasoning_mode": "instant"},
    {"reasoning": {"effort": None, "summary": "auto"}},
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    {"chat_template_kwargs": {"enable_thinking": False, "other": 1}},
    {"reasoning_effort": "none", "thinking": {"type": "enabled"}},
]
PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize("path", PATHS)
async def test_every_name_on_every_wire(path: str) -> None:
    async with running(fake_engine(THINKS), served_model(mistral_metadata())) as here:
        for effort, bodies in ((Effort.HIGH, HIGH), (Effort.NONE, NONE)):
            for body in bodies:
                reply = await here.client.post(path, json={**PATHS[path], **body})
                assert reply.status_code == 200, (body, reply.text)
                assert mistral_text(here) == f'{{"reasoning_effort": "{effort}"}}Hi', body
                assert here.engine.records[-1].params.temperature == SAMPLING[effort].temperature, body


async def high(here: Here, **body: object) -> float:
    await here.chat(reasoning_effort="high", **body)
    return here.engine.records[-1].params.temperature


async def test_a_server_that_keeps_its_own_sampling_at_high_effort() -> None:
    model = served_model(mistral_metadata())
    async with running(fake_engine(THINKS), model) as here:
        assert await high(here, temperature=0) == 0
    async with running(fake_engine(THINKS), replace(model, keeps_own_sampling=True)) as here:
        assert await high(here, temperature=0, top_p=0.1, top_k=5) == 0.7
        assert (here.engine.records[0].params.top_p, here.engine.records[0].params.top_k) == (0.95, 5)
        await here.chat(temperature=0)
        assert here.engine.records[1].params.temperature == 0


async def test_the_field_of_the_thinking_may_have_another_name() -> None:
    model = replace(served_model(mistral_metadata()), thinking_field="reasoning")
    async with running(fake_engine(THINKS), model) as here:
        message = (await here.chat(reasoning_effort="high")).json()["choices"][0]["message"]
        stream = (await here.chat(reasoning_effort="high", stream=True)).text
    assert (message["reasoning"], "reasoning_content" in message) == ("hm", False)
    assert '"reasoning":"h"' in stream


async def test_thinking_may_come_as_mistral_s_chunks() -> None:
    model = replace(served_model(mistral_metadata()), thinking_field="content")
    async with running(fake_engine(THINKS), model) as here:
        message = (await here.chat(reasoning_effort="high")).json()["choices"][0]["message"]
        stream = (await here.chat(reasoning_effort="high", stream=True)).text
    thinking, *said = message["content"]
    assert thinking == {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    assert all(chunk["type"] == "text" for chunk in said)
    assert '{"content":[{"type":"thinking","thinking":[{"type":"text","text":"h"}]}]}' in stream


async def test_tokens_of_thinking_are_counted() -> None:
    async with running(fake_engine(THINKS), served_model(mistral_metadata())) as here:
        usage = (await here.chat(reasoning_effort="high")).json()["usage"]
    assert 2 <= usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"] == 5


async def test_progress_and_timings_in_the_stream() -> None:
    async with running(
        fake_engine(Script(THINKS.steps, num_cached_tokens=2)), served_model(mistral_metadata())
    ) as here:
        reply = await here.chat(stream=True, return_progress=True)
        plain = await here.chat(stream=True)
    chunks = [json.loads(chunk) for chunk in payloads(reply.text)[:-1]]
    progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    total = progress[0]["total"]
    assert [(each["cache"], each["processed"]) for each in progress] == [(2, 2), (2, total)]
    assert (chunks[-1]["timings"]["cache_n"], chunks[-1]["timings"]["prompt_n"]) == (2, total - 2)
    assert chunks[-1]["timings"]["predicted_n"] == 5
    assert "prompt_progress" not in plain.text


async def test_several_answers_in_one_stream(here: Here) -> None:
    reply = await here.chat(stream=True, n=3, seed=1, stream_options={"include_usage": True})
    found = payloads(reply.text)
    *chunks, usage = map(json.loads, found[:-1])
    texts = ["", "", ""]
    for chunk in chunks:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert len(set(texts)) == 1
    assert texts[0]
    assert {record.params.seed for record in here.engine.records} == {1, 2, 3}
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"], found[-1]) == (21, 57, "[DONE]")
