"""Images on each wire reach the engine in their place; what cannot be had is refused by the name of its field."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from mm35local.server.images import MAX_IMAGES
from mm35local.server.model import ServedModel
from mm35local.types import Image, ImageGrid, Prompt
from tests.fakes.engine import INFO, FakeEngine, Script
from tests.fakes.metadata import mistral_metadata
from tests.fakes.pictures import data_url, png
from tests.server.conftest import Here, running, served_model

PNG = png(56, 28)
NUM_ROWS = 2
URL = data_url(PNG)
BASE64 = base64.b64encode(PNG).decode()
OPENAI = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
ANTHROPIC = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}
RESPONSES = {"type": "input_image", "image_url": URL}


def seeing_model() -> ServedModel:
    return replace(served_model(mistral_metadata()), image_grid=ImageGrid())


@pytest.fixture
async def here() -> AsyncGenerator[Here, None]:
    info = replace(INFO, n_ctx=16_384, n_vocab=1 << 17)
    engine = FakeEngine(lambda prompt: Script(((1500, 1501),)), lambda text: [], info=info)
    async with running(engine, seeing_model()) as here:
        yield here


def shown(prompt: Prompt) -> list[Image]:
    """In order of place."""
    by_first = {image.row_ids[0]: image for image in prompt.images}
    return [by_first[id_] for id_ in prompt.token_ids if id_ in by_first]


def text(words: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": words}


TOOL_RESULT = {"type": "tool_result", "tool_use_id": "a", "content": [text("a"), ANTHROPIC]}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": [text("a"), OPENAI, text("b")]}]}),
    "chat, a string": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": URL}]}]},
    ),
    "chat, base64 alone": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": BASE64}}]}]},
    ),
    "chat, system": ("/v1/chat/completions", {"messages": [{"role": "system", "content": [OPENAI, text("a")]}]}),
    "chat, tool": ("/v1/chat/completions", {"messages": [{"role": "tool", "content": [OPENAI]}]}),
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": [ANTHROPIC, text("a")]}]}),
    "messages, url": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]}]},
    ),
    "messages, tool": ("/v1/messages", {"messages": [{"role": "user", "content": [TOOL_RESULT]}]}),
    "messages, system": ("/v1/messages", {"system": [text("a"), ANTHROPIC], "messages": [{"role": "user"}]}),
    "responses": ("/v1/responses", {"input": [{"role": "user", "content": [text("a", "input_text"), RESPONSES]}]}),
    "responses, tool": (
        "/v1/responses",
        {"input": [{"type": "function_call_output", "call_id": "a", "output": [RESPONSES]}]},
    ),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("streams", [False, True])
async def test_each_wire(here: Here, name: str, streams: bool) -> None:
    path, body = BODIES[name]
    answer = await here.client.post(path, json={**body, "max_tokens": 10, "stream": streams})
    assert answer.status_code == 200, answer.text
    (record,) = here.engine.records
    (image,) = shown(record.prompt)
    assert (image.width, image.height, image.num_rows) == (56, 28, NUM_ROWS)
    assert record.prompt.images == (image,)


async def test_order_and_repetition(here: Here) -> None:
    blue = {"type": "image_url", "image_url": {"url": data_url(png(28, 56, (0, 0, 250)))}}
    await here.chat([OPENAI, text("a"), blue, text("b"), OPENAI])
    (record,) = here.engine.records
    assert [image.width for image in shown(record.prompt)] == [56, 28, 56]
    assert [image.width for image in record.prompt.images] == [56, 28]


async def test_token_counts_have_the_images_in_them(here: Here) -> None:
    path = "/v1/messages/count_tokens"
    counts = []
    for content in ([text("a")], [text("a"), ANTHROPIC]):
        answer = await here.client.post(path, json={"messages": [{"role": "user", "content": content}]})
        counts.append(answer.json()["input_tokens"])
    assert counts[1] - counts[0] == NUM_ROWS + 1
    usage = (await here.chat([text("a"), OPENAI])).json()["usage"]
    assert usage["prompt_tokens"] == counts[1]


async def test_the_template_shows_where_an_image_stands(here: Here) -> None:
    body = {"messages": [{"role": "user", "content": [text("a"), OPENAI, text("b")]}]}
    answer = (await here.client.post("/apply-template", json=body)).json()
    assert "[IMG][IMG][IMG_END]" in answer["prompt"]
    assert min(answer["tokens"]) >= 0


async def test_clients_are_told_that_the_model_sees(here: Here) -> None:
    assert (await here.client.get("/props")).json()["modalities"]["vision"] is True
    models = (await here.client.get("/v1/models")).json()
    assert models["data"][0]["capabilities"]["vision"] is True
    assert models["models"][0]["input_modalities"] == ["text", "image"]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}}, "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}, "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": data_url(b"no image")}}, "invalid_image"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}, "invalid_image_url"),
        ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}, "invalid_image_url"),
        ({"type": "image_url"}, "invalid_image_url"),
        ({"type": "image_url", "image_url": 7}, "invalid_image_url"),
        ({"type": "input_image", "file_id": "file-1"}, "invalid_image_url"),
    ],
)
async def test_what_cannot_be_had_is_refused(here: Here, part: dict[str, Any], code: str) -> None:
    answer = await here.chat([text("a"), part])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, "messages.0.content.1")
    assert here.engine.records == []


async def test_too_many_images_are_refused(here: Here) -> None:
    answer = await here.chat([OPENAI] * (MAX_IMAGES + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_images")


@pytest.mark.parametrize("metadata", [None, mistral_metadata()])
async def test_a_model_without_eyes_refuses_before_it_fetches(metadata: dict[str, object] | None) -> None:
    async with running(FakeEngine(lambda prompt: Script(()), lambda text: []), served_model(metadata)) as here:
        answer = await here.chat([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}])
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "no_vision"
        assert "--mmproj" in answer.json()["error"]["message"]
        assert (await here.client.get("/props")).json()["modalities"]["vision"] is False
