"""The client on a real worker process with a real model: streams, cancels, deaths, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from mm35local.chat.vocabulary import Vocabulary
from mm35local.engine.api import (
    EngineConfig,
    EngineState,
    EngineStatus,
    Failed,
    Finished,
    Progress,
    RequestEvent,
    Started,
    Tokens,
)
from mm35local.engine.client import EngineClient
from mm35local.engine.restart import RestartPolicy
from mm35local.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineGivenUp,
    EngineLoading,
    LoadFailed,
    WorkerDied,
)
from mm35local.models.gguf_header import read_header
from mm35local.types import FinishReason, Grammar, Prompt, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=16)
ENDLESS = SamplingParams(temperature=0, ignore_eos=True)
QUESTION: tuple[str | int, ...] = (1, "user\nName three colours.", 2, "\n", 1, "assistant\n")


async def until(is_true: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not is_true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(config: EngineConfig, restart: RestartPolicy | None = None) -> AsyncIterator[EngineClient]:
    client = EngineClient(config, restart)
    await client.start()
    try:
        await until(lambda: client.status.state is not EngineState.LOADING)
        yield client
    finally:
        await client.aclose()


@pytest.fixture
def config(smollm2_path: Path, tmp_path: Path) -> EngineConfig:
    return EngineConfig(smollm2_path, tmp_path / "logs" / "engine.log", n_ctx=2048, n_batch=128)


@pytest.fixture
async def client(config: EngineConfig) -> AsyncIterator[EngineClient]:
    async with running(config) as client:
        yield client


async def collect(client: EngineClient, prompt: tuple[int, ...], params: SamplingParams) -> list[RequestEvent]:
    return [event async for event in client.generate(Prompt(prompt), params)]


def tokens_of(events: list[RequestEvent]) -> list[int]:
    return [token_id for event in events if isinstance(event, Tokens) for token_id in event.token_ids]


async def test_a_request_streams_and_ends_with_usage_that_adds_up(client: EngineClient) -> None:
    prompt = tuple(await client.tokenize(QUESTION))
    events = await collect(client, prompt, GREEDY)
    assert isinstance(events[0], Started)
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.STOP
    assert end.usage.num_prompt_tokens == len(prompt)
    assert end.usage.num_completion_tokens == len(tokens_of(events)) > 3
    info = client.status.info
    assert info is not None
    assert (info.n_ctx, info.num_slots, info.n_ctx_train) == (2048, 8, 8192)
    assert info.device
    await until(lambda: client.status.cells.num_used >= len(prompt) and client.status.cells.num_held == 0)


async def test_eight_at_once_all_end_and_seeds_repeat(client: EngineClient) -> None:
    prompt = tuple(await client.tokenize(QUESTION))
    drawn = SamplingParams(temperature=1, seed=5, max_tokens=12)
    answers = [tokens_of(await collect(client, prompt, drawn)) for _ in range(3)]
    assert answers == answers[:1] * 3, "found in the cache or not"
    many = await asyncio.gather(*(collect(client, (*prompt, 100 + n), GREEDY) for n in range(8)))
    assert all(isinstance(events[-1], Finished) for events in many)
    assert client.status.num_running == 0


async def test_tokenize_never_makes_control_tokens_of_text(client: EngineClient) -> None:
    ids = await client.tokenize(["<|im_start|>", 1, "a\ud800", ""])
    assert ids.count(1) == 1
    assert len(ids) > 4


async def test_a_stream_goes_on_while_a_long_text_is_tokenized(client: EngineClient) -> None:
    num_ids, steps = 0, 0
    async with contextlib.aclosing(client.generate(Prompt((1, 2, 3)), ENDLESS)) as events:
        await anext(events)
        tokenizing = asyncio.create_task(client.tokenize(["a b " * 500_000]))
        async for event in events:
            steps += isinstance(event, Tokens)
            if tokenizing.done():
                num_ids = len(tokenizing.result())
                break
    assert num_ids > 500_000
    assert steps > 5


async def test_a_long_prompt_shows_progress_and_is_found_again(client: EngineClient) -> None:
    prompt = tuple(range(1000, 1400))
    events = await collect(client, prompt, GREEDY)
    assert [e.num_computed for e in events if isinstance(e, Progress)] == [128, 256, 384]
    again = await collect(client, prompt, GREEDY)
    assert isinstance(again[0], Started)
    assert again[0].num_cached_tokens == 400
    assert tokens_of(again) == tokens_of(events)


async def test_leaving_early_cancels_and_frees_the_slot(client: EngineClient) -> None:
    stream = client.generate(Prompt((1, 5, 6)), ENDLESS)
    async with contextlib.aclosing(stream):
        async for event in stream:
            if isinstance(event, Tokens):
                break
    assert client.status.num_running == 1
    await until(lambda: client.status.num_running == 0, seconds=2)


async def test_too_long_a_prompt_is_refused(client: EngineClient) -> None:
    [event] = await collect(client, (1, 2, 3), SamplingParams(max_tokens=2046))
    assert isinstance(event, Failed)
    assert isinstance(event.error, ContextLengthExceeded)
    assert event.error.num_max_tokens == 2046


async def test_a_killed_worker_fails_its_requests_once_and_comes_back(config: EngineConfig) -> None:
    async with running(config, RestartPolicy(first_delay_seconds=0.05)) as client:
        running_one = asyncio.create_task(collect(client, (1, 5, 6), ENDLESS))
        await until(lambda: client.status.num_running == 1)
        await asyncio.sleep(0.1)
        first_pid = kill_worker(client, signal.SIGKILL)
        events = await running_one
        assert [isinstance(event, Failed | Finished) for event in events].count(True) == 1
        end = events[-1]
        assert isinstance(end, Failed)
        assert isinstance(end.error, WorkerDied)
        assert end.error.exit_code == -signal.SIGKILL
        assert client.status.state is EngineState.LOADING
        [refused] = await collect(client, (1, 2), GREEDY)
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, EngineLoading)
        with pytest.raises(EngineLoading):
            await client.tokenize(["a"])
        await until(lambda: client.status.state is EngineState.READY)
        assert client.status.num_restarts == 1
        assert client.worker_pid != first_pid
        assert not psutil.pid_exists(first_pid), "it was reaped"
        assert isinstance((await collect(client, (1, 2), GREEDY))[-1], Finished)


async def test_an_abort_is_quoted_from_the_log(config: EngineConfig) -> None:
    async with running(config, RestartPolicy(first_delay_seconds=0.05)) as client:
        stream = asyncio.create_task(collect(client, (1, 5, 6), ENDLESS))
        await until(lambda: client.status.num_running == 1)
        await asyncio.sleep(0.1)
        kill_worker(client, signal.SIGABRT)
        end = (await stream)[-1]
        assert isinstance(end, Failed)
        assert isinstance(end.error, WorkerDied)
        assert "Abort" in end.error.detail


async def test_a_worker_that_keeps_dying_is_given_up(config: EngineConfig) -> None:
    async with running(config, RestartPolicy(first_delay_seconds=0.01, max_deaths=2)) as client:
        first_pid = kill_worker(client, signal.SIGKILL)
        await until(lambda: client.worker_pid not in (None, first_pid))
        with config.log_path.open("a") as log:
            log.write("CUDA error: out of memory\n")  # while it loads, which it survives
        await until(lambda: client.status.num_restarts == 1 and client.status.state is EngineState.READY)
        kill_worker(client, signal.SIGKILL)
        await until(lambda: client.status.state is EngineState.FAILED)
        error = client.status.error
        assert isinstance(error, EngineGivenUp)
        assert (error.exit_code, error.num_deaths) == (-signal.SIGKILL, 2)
        assert error.detail.startswith("SIGKILL")
        assert "2 times in a row" in str(error)
        assert "start the server again" in error.hint
        [refused] = await collect(client, (1, 2), GREEDY)
        assert isinstance(refused, Failed)
        assert refused.error is error


@pytest.mark.parametrize(("content", "reason"), [(b"no gguf at all", "magic"), (None, "No such file")])
async def test_a_file_that_cannot_be_loaded_fails_once_in_llama_cpps_words(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    async with running(EngineConfig(path, tmp_path / "engine.log", n_ctx=512)) as client:
        status = client.status
        assert status.state is EngineState.FAILED
        assert isinstance(status.error, LoadFailed)
        assert reason in status.error.detail
        assert status.num_restarts == 0
        [refused] = await collect(client, (1, 2), GREEDY)
        assert isinstance(refused, Failed)
        assert refused.error is status.error


async def test_a_truncated_file_fails_with_the_tensor_named(smollm2_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with smollm2_path.open("rb") as whole:
        path.write_bytes(whole.read(30_000_000))
    async with running(EngineConfig(path, tmp_path / "engine.log", n_ctx=512)) as client:
        assert isinstance(client.status.error, LoadFailed)
        assert "not within the file bounds" in client.status.error.detail


async def test_a_worker_that_reads_nothing_stops_nobody(client: EngineClient) -> None:
    assert client.worker_pid is not None
    os.kill(client.worker_pid, signal.SIGSTOP)
    started = time.monotonic()
    streams = [asyncio.create_task(collect(client, tuple(range(1000, 3040)), GREEDY)) for _ in range(100)]
    await until(lambda: client.status.num_running == 100, seconds=2)
    assert time.monotonic() - started < 2, "more than a pipe holds, and the loop goes on"
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    os.kill(client.worker_pid, signal.SIGCONT)
    await until(lambda: client.status.num_running == 0)
    assert isinstance((await collect(client, (1, 2), GREEDY))[-1], Finished)


async def test_closing_ends_everything_and_leaves_no_process(config: EngineConfig) -> None:
    children_before = set(psutil.Process().children())
    client = EngineClient(config)
    await client.start()
    [refused] = await collect(client, (1, 2), GREEDY)
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, EngineLoading)
    await until(lambda: client.status.state is EngineState.READY)
    stream = asyncio.create_task(collect(client, (1, 5), ENDLESS))
    await until(lambda: client.status.num_running == 1)
    pid = client.worker_pid
    assert pid is not None
    await asyncio.gather(client.aclose(), client.aclose())
    end = (await stream)[-1]
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.CANCELLED
    assert not psutil.pid_exists(pid)
    await client.aclose()
    [refused] = await collect(client, (1, 2), GREEDY)
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, EngineError)
    left = {child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())}
    assert left <= children_before


async def test_closing_that_is_left_kills_a_worker_that_goes_on(client: EngineClient) -> None:
    pid = kill_worker(client, signal.SIGSTOP)
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0.1)
    assert not closing.done()
    closing.cancel()
    async with asyncio.timeout(2):
        await asyncio.wait({closing})
        await client.aclose()
    assert not psutil.pid_exists(pid)


async def test_closing_while_loading_or_before_starting_is_quick(config: EngineConfig) -> None:
    await EngineClient(config).aclose()
    client = EngineClient(config)
    await client.start()
    started = time.monotonic()
    await client.aclose()
    assert time.monotonic() - started < 4
    assert client.status.num_running == 0


async def test_an_idle_worker_uses_no_cpu_and_leaves_signals_to_its_parent(client: EngineClient) -> None:
    assert client.worker_pid is not None
    await collect(client, (1, 2, 3), GREEDY)
    for number in (signal.SIGINT, signal.SIGTERM):  # what a terminal or a service manager sends to all of a group
        os.kill(client.worker_pid, number)
    worker = psutil.Process(client.worker_pid)
    await asyncio.sleep(0.3)
    before = worker.cpu_times()
    await asyncio.sleep(2)
    after = worker.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.02
    assert isinstance((await collect(client, (1, 2, 3), GREEDY))[-1], Finished)


async def test_a_cancel_interrupts_a_step_that_is_being_computed(config: EngineConfig) -> None:
    slow = EngineConfig(config.model_path, config.log_path, n_ctx=4096, n_batch=2048)
    async with running(slow) as client:
        stream = client.generate(Prompt(tuple(range(1000, 3040))), GREEDY)
        async with contextlib.aclosing(stream):
            assert isinstance(await anext(stream), Started)
            await asyncio.sleep(0.3)
        left = time.monotonic()
        await until(lambda: client.status.num_running == 0)
        assert time.monotonic() - left < 2.5, "the step alone takes several seconds"


def kill_worker(client: EngineClient, number: signal.Signals) -> int:
    pid = client.worker_pid
    assert pid is not None
    os.kill(pid, number)
    return pid


def test_a_fresh_status_is_loading() -> None:
    assert EngineStatus(EngineState.LOADING) == EngineClient(EngineConfig(Path(), Path(), 1)).status


async def test_an_answer_follows_its_grammar(client: EngineClient, smollm2_path: Path) -> None:
    """Drawn at a high temperature, so that without the grammar it would be anything."""
    vocabulary = Vocabulary.from_metadata(read_header(smollm2_path).metadata, smollm2_path.name)
    prompt = tuple(await client.tokenize(QUESTION))
    colours = Grammar('start: COLOUR ("," COLOUR)+\nCOLOUR: "red" | "green" | "blue"')
    params = SamplingParams(temperature=2, seed=1, max_tokens=64, grammar=colours)
    constrained, free = await asyncio.gather(collect(client, prompt, params), collect(client, prompt, GREEDY))
    assert isinstance(constrained[-1], Finished)
    said = b"".join(map(vocabulary.token_bytes, tokens_of(constrained))).decode()
    assert len(said) > 5
    assert re.fullmatch("(red|green|blue)(,(red|green|blue))*(,|,?[rgb][a-z]*)?", said)
    assert tokens_of(free) == tokens_of(await collect(client, prompt, GREEDY))


async def test_a_grammar_that_does_not_compile_fails_its_request_only(client: EngineClient) -> None:
    prompt = tuple(await client.tokenize(QUESTION))
    bad = SamplingParams(max_tokens=4, grammar=Grammar("start: nope"))
    failed, good = await asyncio.gather(collect(client, prompt, bad), collect(client, prompt, GREEDY))
    assert [type(event) for event in failed] == [Failed]
    assert isinstance(good[-1], Finished)
    endless = await collect(client, prompt, SamplingParams(ignore_eos=True, grammar=Grammar('start: "a"')))
    assert isinstance(endless[-1], Failed)
