"""The endpoint as its users see it: a real server process, a real model, the real `openai` client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.serving import Server, free_port, mm35, serving

QUESTION = "Name three colours."


@pytest.fixture(scope="module")
def server(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving("--model", str(smollm2_path), "--ctx", "2048", log=log) as server:
        yield server


def test_streamed_and_whole_are_the_same(server: Server) -> None:
    whole, streamed = server.ask(QUESTION), server.stream(QUESTION)
    assert whole == streamed
    assert whole.text.strip()
    assert 0 < whole.num_completion_tokens <= 24


def test_eight_at_once_all_end(server: Server) -> None:
    questions = [f"Count to {number} in words." for number in range(3, 11)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda question: server.stream(question, 12), questions))
    # The words may differ from an answer alone: llama.cpp's kernels round by the shape of the batch.
    assert all(answer.text and 0 < answer.num_completion_tokens <= 12 for answer in answers)
    assert server.health()[1]["slots"]["busy"] == 0


def test_a_stop_string_ends_the_answer_before_it(server: Server) -> None:
    whole = server.ask(QUESTION, 40).text
    word = whole.split()[3]
    reply = server.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": QUESTION}], max_tokens=40, temperature=0, stop=word
    )
    assert reply.choices[0].message.content == whole[: whole.index(word)]
    assert reply.choices[0].finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer(server: Server) -> None:
    def sampled(seed: int) -> str:
        reply = server.client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Tell a story."}],
            max_tokens=24,
            temperature=1.5,
            seed=seed,
        )
        return reply.choices[0].message.content or ""

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_max_tokens_under_either_name(server: Server) -> None:
    reply = server.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": QUESTION}], max_completion_tokens=3, temperature=0
    )
    assert reply.usage is not None
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (3, "length")


def test_models_and_health(server: Server) -> None:
    assert [model.id for model in server.client.models.list()] == ["smollm2-135m"]
    status, body = server.health()
    assert (status, body["status"], body["model"]["n_ctx"]) == (200, "ok", 2048)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "martian", "content": "x"}]}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": -1}, "temperature"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 100_000}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x " * 5000}]}, "messages"),
    ],
)
def test_a_malformed_request_is_a_400_that_names_the_field(server: Server, body: dict[str, object], field: str) -> None:
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    assert field in (error["param"] or "") + error["message"]
    assert server.health()[0] == 200


def test_past_the_context_both_numbers_are_named(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"2048 tokens.*3000 more") as caught:
        server.ask(QUESTION, 3000)
    assert caught.value.code == "context_length_exceeded"


def test_closing_a_stream_frees_its_slot(server: Server) -> None:
    answer = server.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Write a long story."}], max_tokens=1500, stream=True
    )
    next(iter(answer))
    answer.close()
    assert any(server.health()[1]["slots"]["busy"] == 0 for _ in range(500))


def test_the_port_of_a_running_server_is_refused(server: Server, smollm2_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    done = mm35("serve", "--model", str(smollm2_path), "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"error: port {port} on 127.0.0.1 is taken by another program",
        "hint: choose another with --port",
    ]


def test_a_killed_worker_fails_its_requests_and_comes_back(server: Server) -> None:
    pid = server.worker().pid
    answer = server.client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Write a long story."}], max_tokens=1500, stream=True
    )
    chunks = iter(answer)
    for _ in range(3):
        next(chunks)
    psutil.Process(pid).kill()
    with pytest.raises(openai.APIError, match="engine's process ended"):
        list(chunks)
    server.wait_until("loading")
    body = server.wait_until("ok")
    assert body["restarts"] == 1
    assert server.worker().pid != pid
    assert server.ask(QUESTION).text


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such file"), (b"PK\x03\x04" + bytes(100), "not a GGUF file"), (b"truncated", "cut short")],
    ids=["missing", "no-gguf", "truncated"],
)
def test_a_bad_model_file_is_two_lines(tmp_path: Path, smollm2_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(smollm2_path.read_bytes()[:50_000_000] if content == b"truncated" else content)
    done = mm35("serve", "--model", str(path), "--port", str(free_port()))
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith(f"error: {path}")
    assert problem in lines[0]
    assert lines[1].startswith("hint: ")
