"""Requests to the engine alone, without a server: what several benchmarks measure with."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from mm35local import paths
from mm35local.engine.api import EngineConfig, EngineState, Failed, Finished, Tokens
from mm35local.engine.client import EngineClient
from mm35local.models.catalog import load_catalog
from mm35local.models.configure import configure
from mm35local.models.download import download, locate
from mm35local.models.geometry import from_header
from mm35local.models.gguf_header import read_header
from mm35local.models.gpus import Machine, free_ram_bytes
from mm35local.models.plan import Wish, make_plan
from mm35local.types import Prompt, SamplingParams, Usage


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    prompt: tuple[int, ...]
    params: SamplingParams
    num_streams: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One workload, once."""

    tokens_per_second: float
    answers: tuple[tuple[int, ...], ...]
    usages: tuple[Usage, ...]

    @property
    def acceptance(self) -> float:
        num_drafted = sum(usage.num_drafted for usage in self.usages)
        return sum(usage.num_accepted for usage in self.usages) / num_drafted if num_drafted else 0.0


def embedded() -> Path:
    variant = load_catalog(paths.user_catalog_file()).entry("smollm2-135m").variant("Q4_1")
    return locate(variant, paths.models_dir()) or download(variant, paths.models_dir(), lambda done, total: None)


def open_engine(model: Path, log: Path, speculate: str, num_slots: int = 8) -> EngineClient:
    """With 8,192 cells in RAM, as `mm35 serve --parallel NUM_SLOTS` plans it."""
    machine = Machine((), free_ram_bytes())
    plan = make_plan(from_header(read_header(model)), machine, Wish(n_ctx=8192, num_slots=num_slots))
    asked = EngineConfig(model, log, plan.n_ctx, num_slots=num_slots, speculate=speculate)
    return EngineClient(configure(asked, plan, machine))


async def load(engine: EngineClient) -> None:
    await engine.start()
    while engine.status.state is EngineState.LOADING:
        await asyncio.sleep(0.02)
    if engine.status.error:
        raise engine.status.error


async def run(engine: EngineClient, workload: Workload) -> Run:
    """Tokens a second from the first token of the last stream that starts to the end of all."""
    prompts = [
        (*workload.prompt[:1], *workload.prompt) if n % 2 else workload.prompt for n in range(workload.num_streams)
    ]
    started = time.perf_counter()
    streams = await asyncio.gather(*(_stream(engine, prompt, workload.params) for prompt in prompts))
    first = min(when for when, _, _ in streams)
    num_tokens = sum(len(answer) - 1 for _, answer, _ in streams)
    assert first > started
    return Run(
        num_tokens / (time.perf_counter() - first),
        tuple(answer for _, answer, _ in streams),
        tuple(usage for _, _, usage in streams),
    )


async def _stream(
    engine: EngineClient, prompt: tuple[int, ...], params: SamplingParams
) -> tuple[float, tuple[int, ...], Usage]:
    answer: list[int] = []
    first = 0.0
    async for event in engine.generate(Prompt(prompt), params):
        if isinstance(event, Tokens):
            first = first or time.perf_counter()
            answer += event.token_ids
        elif isinstance(event, Finished):
            return first, tuple(answer), event.usage
        elif isinstance(event, Failed):
            raise event.error
    raise AssertionError("a request ends once")
