"""What speculation brings and costs: `python -m bench.speculate [--rounds N] [--model GGUF]`.

Two engines on the embedded model, one that guesses and one that does not, answer the same requests in turn: an edit of
code that repeats most of its prompt, and text drawn at random, where no guess can be right.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.results_file import write
from mm35local import paths
from mm35local.engine.api import EngineConfig, EngineState, Failed, Finished, Tokens
from mm35local.engine.client import EngineClient
from mm35local.models.catalog import load_catalog
from mm35local.models.download import download, locate
from mm35local.types import Prompt, SamplingParams, Usage

_CODE = Path(__file__).parents[1] / "mm35local" / "engine" / "restart.py"
_EDIT = "{code}\n# The same file once more, with class DeathRow renamed to Deaths:\n\n{start}"


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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--model", type=Path, default=None)
    asked = arguments.parse_args()
    asyncio.run(_main(asked.model or _embedded(), asked.rounds))


async def _main(model: Path, num_rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: _engine(model, Path(folder) / f"{name}.log", name) for name in ("off", "auto")}
        try:
            for engine in engines.values():
                await _load(engine)
            workloads = await _workloads(engines["off"])
            runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
            for _ in range(num_rounds):
                for workload in workloads:
                    for name, engine in engines.items():
                        runs[workload.name, name].append(await _run(engine, workload))
        finally:
            for engine in engines.values():
                await engine.aclose()
    _report(model, workloads, runs)


def _engine(model: Path, log: Path, speculate: str) -> EngineClient:
    return EngineClient(EngineConfig(model, log, n_ctx=8192, speculate=speculate))


async def _load(engine: EngineClient) -> None:
    await engine.start()
    while engine.status.state is EngineState.LOADING:
        await asyncio.sleep(0.02)
    if engine.status.error:
        raise engine.status.error


async def _workloads(engine: EngineClient) -> list[Workload]:
    code = _CODE.read_text()
    start = "".join(code.splitlines(keepends=True)[:4])
    edit = tuple(await engine.tokenize([_EDIT.format(code=code, start=start)]))
    story = tuple(await engine.tokenize(["Once upon a time there was a"]))
    greedy = SamplingParams(temperature=0, max_tokens=384, ignore_eos=True)
    drawn = SamplingParams(temperature=1.5, seed=7, max_tokens=192, ignore_eos=True)
    return [
        Workload("code edit, 1 stream", edit, greedy),
        Workload("code edit, 4 streams", edit, greedy, num_streams=4),
        Workload("random text, 1 stream", story, drawn),
        Workload("random text, 4 streams", story, drawn, num_streams=4),
    ]


async def _run(engine: EngineClient, workload: Workload) -> Run:
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


def _report(model: Path, workloads: list[Workload], runs: dict[tuple[str, str], list[Run]]) -> None:
    table = Table(title=f"speculation, {model.name}", box=None)
    for column in ("workload", "off (tok/s)", "auto (tok/s)", "ratio", "acceptance", "same text"):
        table.add_column(column, justify="left" if column == "workload" else "right")
    rows = []
    for workload in workloads:
        off, auto = runs[workload.name, "off"], runs[workload.name, "auto"]
        rates = [statistics.median(run.tokens_per_second for run in side) for side in (off, auto)]
        ratio = statistics.median(b.tokens_per_second / a.tokens_per_second for a, b in zip(off, auto, strict=True))
        acceptance = statistics.median(run.acceptance for run in auto)
        num_same = sum(a.answers == b.answers for a, b in zip(off, auto, strict=True))
        rows.append(
            {
                "workload": workload.name,
                "off_tokens_per_second": rates[0],
                "auto_tokens_per_second": rates[1],
                "ratio": ratio,
                "acceptance": acceptance,
                "rounds_with_same_text": num_same,
                "rounds": len(off),
            }
        )
        same = f"{num_same} of {len(off)}"
        table.add_row(workload.name, *(f"{x:.1f}" for x in rates), f"{ratio:.2f}", f"{acceptance:.0%}", same)
    Console().print(table)
    write("speculate", {"model": model.name, "rows": rows})


def _embedded() -> Path:
    variant = load_catalog(paths.user_catalog_file()).entry("smollm2-135m").variant("Q4_1")
    return locate(variant, paths.models_dir()) or download(variant, paths.models_dir(), lambda done, total: None)


if __name__ == "__main__":
    main()
