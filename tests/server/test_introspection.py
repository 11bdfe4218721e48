"""What clients find out before they talk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mm35local.chat.turn import Decoded, Prefill, Started, TurnEvent
from mm35local.engine.api import CellUse, StoreUse
from mm35local.errors import WorkerDied
from mm35local.server.activity import Activity
from tests.fakes.engine import Script
from tests.fakes.metadata import chatml_ids, mistral_metadata
from tests.server.conftest import ANSWER, Here, fake_engine, listening, running, script, served_model


def metrics(page: bytes) -> Mapping[tuple[str, ...], float]:
    """By name and labels, these in alphabetical order."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


async def test_models_tell_the_context_length_under_every_name(here: Here) -> None:
    body = (await here.client.get("/v1/models")).json()
    (entry,) = body["data"]
    assert entry["id"] == "test-model"
    names = ("context_length", "max_model_len", "context_window", "max_context_length")
    assert {entry[name] for name in names} == {1024}
    assert entry["meta"] == {"n_ctx": 1024, "n_ctx_train": 8192, "n_vocab": 512, "size": 1000}
    assert (await here.client.get("/v1/models/any/name")).json() == entry
    (codex,) = body["models"]
    assert (codex["slug"], codex["context_window"], codex["visibility"]) == ("test-model", 1024, "list")
    assert codex["supported_reasoning_levels"] == []


async def test_codex_sees_the_efforts_of_a_model_that_has_them() -> None:
    async with running(fake_engine(), served_model(mistral_metadata())) as here:
        (codex,) = (await here.client.get("/v1/models")).json()["models"]
    assert [level["effort"] for level in codex["supported_reasoning_levels"]] == ["none", "high"]


async def test_props_as_llama_server_s_clients_read_them(here: Here) -> None:
    body = (await here.client.get("/props")).json()
    assert body["default_generation_settings"]["n_ctx"] == 1024
    assert body["default_generation_settings"]["params"]["temperature"] == 0.15
    assert body["modalities"] == {"vision": False, "audio": False}
    assert (body["total_slots"], body["model_alias"], body["is_sleeping"]) == (4, "test-model", False)
    assert (body["bos_token"], body["eos_token"]) == ("<s>", "<|im_end|>")
    assert all(isinstance(value, bool) for value in body["chat_template_caps"].values())


@pytest.mark.parametrize("path", ["/props", "/slots"])
async def test_nothing_is_told_before_the_model_is_loaded(path: str) -> None:
    engine = fake_engine()
    engine.loads_at_once = False
    async with running(engine) as here:
        reply = await here.client.get(path)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "loading")
        assert (await here.client.get("/v1/models")).json()["data"][0]["context_length"] is None


async def test_a_running_answer_holds_a_slot() -> None:
    engine = fake_engine(Script((tuple(chatml_ids("word ")),), is_endless=True))
    engine.step_seconds = 0.005
    async with running(engine) as here:
        asking = asyncio.create_task(here.chat())
        async with asyncio.timeout(5):
            while not (engine.records and engine.records[0].num_sent):
                await asyncio.sleep(0.005)
        slots = (await here.client.get("/slots")).json()
        assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
        assert [slot["is_processing"] for slot in slots] == [True, False, False, False]
        progress = slots[0]["prompt_progress"]
        assert progress["total"] == progress["processed"] == 21
        assert (slots[0]["n_ctx"], slots[0]["kv_cells_used"]) == (1024, 0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not any(slot["is_processing"] for slot in (await here.client.get("/slots")).json())
        values = metrics((await here.client.get("/metrics")).content)
    assert values["mm35_requests_total", "cancelled", "chat"] == 1
    assert values["mm35_completion_tokens_total",] == engine.records[0].num_sent > 0


async def test_text_to_ids_and_back(here: Here) -> None:
    reply = await here.client.post("/tokenize", json={"content": "<|im_end|> ü", "add_special": True})
    tokens = reply.json()["tokens"]
    assert tokens == [3, *chatml_ids("<|im_end|> ü")]  # text is text: no control token came of it
    assert (reply.json()["count"], reply.json()["max_model_len"]) == (len(tokens), 1024)
    back = (await here.client.post("/detokenize", json={"tokens": [*tokens, 2]})).json()
    assert back["content"] == "<s><|im_end|> ü<|im_end|>"


async def test_pieces_that_are_no_text_are_bytes(here: Here) -> None:
    reply = await here.client.post("/tokenize", json={"content": ["é", 2], "with_pieces": True})
    assert [token["piece"] for token in reply.json()["tokens"]] == [[0xC3], [0xA9], "<|im_end|>"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/detokenize", {"tokens": [512_000]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/tokenize", {"content": 5}, "content"),
        ("/apply-template", {"messages": []}, "messages"),
    ],
)
async def test_wrong_input_is_named(here: Here, path: str, body: object, param: str) -> None:
    reply = await here.client.post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_the_template_shows_the_prompt_the_engine_gets(here: Here) -> None:
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    body = (await here.client.post("/apply-template", json={"messages": messages})).json()
    await here.client.post("/v1/chat/completions", json={"messages": messages})
    assert tuple(body["tokens"]) == here.engine.records[0].prompt.token_ids
    assert body["prompt"] == "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"


async def test_metrics_count_what_was_answered() -> None:
    engine = fake_engine(Script(script().steps, num_cached_tokens=5, num_drafted=4, num_accepted=3))
    async with running(engine) as here:
        await here.chat()
        await here.chat("x" * 5000)
        engine.state = replace(engine.state, cells=CellUse(300, 0, 40, 25, StoreUse(2, 700, 3, 5000)))
        (slot, *_) = (await here.client.get("/slots")).json()
        page = await here.client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    values = metrics(page.content)
    assert values["mm35_requests_total", "chat", "stop"] == 1
    assert values["mm35_requests_total", "ContextLengthExceeded", "chat"] == 1
    assert values["mm35_prompt_tokens_total",] == 21
    assert values["mm35_cached_tokens_total",] == 5
    assert (values["mm35_drafted_tokens_total",], values["mm35_accepted_tokens_total",]) == (4, 3)
    assert values["mm35_completion_tokens_total",] == len(ANSWER.encode())
    assert values["mm35_time_to_first_token_seconds_count",] == 1
    assert (values["mm35_requests_running",], values["mm35_requests_waiting",]) == (0, 0)
    assert (values["mm35_kv_cells",], values["mm35_kv_cells_used",], values["mm35_kv_cells_running",]) == (1024, 300, 0)
    assert (values["mm35_kv_cells_spared",], values["mm35_kv_cells_shared",]) == (40, 25)
    assert (values["mm35_kv_store_bytes",], values["mm35_kv_store_states",]) == (5000, 3)
    assert (values["mm35_kv_store_ram_bytes",], values["mm35_kv_store_ram_states",]) == (700, 2)
    assert (slot["kv_cells_used"], slot["kv_cells_shared"]) == (300, 25)
    assert slot["kv_store"] == {"states": 3, "bytes": 5000, "ram_states": 2, "ram_bytes": 700}
    assert (values["mm35_slots",], values["mm35_ready",]) == (4, 1)


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "cancelled"), (WorkerDied(-9), "WorkerDied"), (KeyError("x"), "error")]
)
@pytest.mark.parametrize("tokens", [(), (Decoded(3, 4, 2), Decoded(1))])
async def test_what_was_computed_counts_also_where_an_answer_has_no_end(
    error: Exception | None, outcome: str, tokens: tuple[Decoded, ...]
) -> None:
    async def events() -> AsyncGenerator[TurnEvent, None]:
        yield Started(10, 2)
        yield Prefill(6, 10)
        for event in tokens:
            yield event
        if error is not None:
            raise error
        yield Decoded(0)

    activity, num_events = Activity(fake_engine()), 0
    with suppress(WorkerDied, KeyError):
        async with aclosing(activity.watch(events(), "chat")) as watched:
            async for _ in watched:
                num_events += 1
                if error is None and num_events == 2 + len(tokens):
                    break
    values = metrics(activity.page())
    assert values["mm35_requests_total", *sorted(("chat", outcome))] == 1
    assert (values["mm35_prompt_tokens_total",], values["mm35_cached_tokens_total",]) == (10 if tokens else 6, 2)
    counted = [values[f"mm35_{name}_tokens_total",] for name in ("completion", "drafted", "accepted")]
    assert counted == ([4, 4, 2] if tokens else [0, 0, 0])
    assert values["mm35_time_to_first_token_seconds_count",] == bool(tokens)


@pytest.mark.parametrize("path", ["/", "/v1"])
async def test_the_bare_address_tells_where_to_go(here: Here, path: str) -> None:
    body = (await here.client.get(path)).json()
    assert (body["server"], body["model"], body["status"]) == ("mm35local", "test-model", "ok")
    assert {"POST /v1/chat/completions", "POST /v1/messages", "GET /health"} <= set(body["endpoints"])


async def test_head_is_get_without_a_body() -> None:
    async with listening(fake_engine()) as here:
        for path in ("/", "/health", "/v1/models"):
            told, whole = await here.client.head(path), await here.client.get(path)
            assert (told.status_code, told.content) == (200, b"")
            assert told.headers["content-length"] == whole.headers["content-length"]
        assert (await here.client.head("/v1/chat/completions")).status_code == 405


async def test_each_answer_and_each_refusal_leaves_a_line_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mm35local.server")
    async with running(fake_engine(Script(script().steps, num_cached_tokens=5)), api_keys=["K"]) as here:
        key = {"authorization": "Bearer K"}
        messages = [{"role": "user", "content": "my secret"}, {"role": "user", "content": "and more"}]
        await here.client.post("/v1/chat/completions", json={"messages": messages}, headers=key)
        await here.client.post("/v1/chat/completions", json={"messages": []}, headers=key)
        await here.client.post("/v1/chat/completions", json={"messages": messages})
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "history: 1 merged"
    assert lines[1].startswith("chat: stop, ")
    assert f"(5 cached) + {len(ANSWER.encode())}, first after" in lines[1]
    assert lines[2].startswith("400 invalid_request_error: messages: ")
    assert lines[3].startswith("401 invalid_api_key: the API key is missing")
    assert "secret" not in caplog.text
    assert ANSWER not in caplog.text
