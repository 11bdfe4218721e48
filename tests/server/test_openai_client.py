"""The client that most programs use, with its own types."""

from __future__ import annotations

import openai
import pytest

from mm35local.errors import WorkerDied
from tests.fakes.engine import FakeEngine, Script
from tests.server.conftest import ANSWER, Here, fake_engine, listening, script


def client(here: Here) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{here.url}/v1", api_key="none", max_retries=0)


async def test_whole_and_streamed_are_the_same_text() -> None:
    async with listening(fake_engine()) as here, client(here) as ai:
        whole = await ai.chat.completions.create(
            model="anything", messages=[{"role": "user", "content": "Hi"}], temperature=0
        )
        stream = await ai.chat.completions.create(
            model="anything",
            messages=[{"role": "user", "content": "Hi"}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == streamed == ANSWER
    assert whole.usage == chunks[-1].usage
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


async def test_errors_are_the_client_s_own_types() -> None:
    async with listening(fake_engine()) as here, client(here) as ai:
        with pytest.raises(openai.BadRequestError) as caught:
            await ai.chat.completions.create(model="x", messages=[{"role": "user", "content": "x" * 5000}])
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


async def test_an_error_in_mid_stream_is_raised() -> None:
    engine: FakeEngine = fake_engine(Script(script().steps, error=WorkerDied(None, "killed")))
    async with listening(engine) as here, client(here) as ai:
        stream = await ai.chat.completions.create(model="x", messages=[{"role": "user", "content": "Hi"}], stream=True)
        with pytest.raises(openai.APIError, match="killed"):
            _ = [chunk async for chunk in stream]


async def test_models_are_listed() -> None:
    async with listening(fake_engine()) as here, client(here) as ai:
        assert [model.id async for model in ai.models.list()] == ["test-model"]
