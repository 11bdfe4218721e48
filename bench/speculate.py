"""What speculation brings and costs: `python -m bench.speculate [--rounds N] [--model GGUF]`.

Two engines on the embedded model, one that guesses and one that does not, answer the same requests in turn: an edit of
code that repeats most of its prompt, and text drawn at random, where no guess can be right.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.engine_runs import Run, Workload, embedded, load, open_engine, run
from bench.results_file import write
from mm35local.engine.client import EngineClient
from mm35local.types import SamplingParams

_CODE = Path(__file__).parents[1] / "mm35local" / "engine" / "restart.py"
_NAMES = ("DeathRow", "Deaths", "DeathCount")
_EDIT = "{0}\n# The same file, with class {1[0]} renamed to {1[1]}:\n\n{2}\n# And with {1[1]} renamed to {1[2]}:\n\n{3}"
"""Shown once before, as a conversation about a file has it, the model goes on copying."""
_LEAST_REPEATED = 4
"""Tokens in a row that count as repeated."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--model", type=Path, default=None)
    asked = arguments.parse_args()
    asyncio.run(_main(asked.model or embedded(), asked.rounds))


async def _main(model: Path, num_rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: open_engine(model, Path(folder) / f"{name}.log", name) for name in ("off", "auto")}
        try:
            for engine in engines.values():
                await load(engine)
            workloads = await _workloads(engines["off"])
            runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
            for _ in range(num_rounds):
                for workload in workloads:
                    for name, engine in engines.items():
                        runs[workload.name, name].append(await run(engine, workload))
        finally:
            for engine in engines.values():
                await engine.aclose()
    _report(model, workloads, runs)


async def _workloads(engine: EngineClient) -> list[Workload]:
    code = _CODE.read_text()
    first, second, third = (code.replace(_NAMES[0], name) for name in _NAMES)
    start = "".join(third.splitlines(keepends=True)[:4])
    edit = tuple(await engine.tokenize([_EDIT.format(first, _NAMES, second, start)]))
    story = tuple(await engine.tokenize(["Once upon a time there was a"]))
    greedy = SamplingParams(temperature=0, max_tokens=160, ignore_eos=True)
    drawn = SamplingParams(temperature=1.5, seed=7, max_tokens=96, ignore_eos=True)
    return [
        Workload("code edit, 1 stream", edit, greedy),
        Workload("code edit, 4 streams", edit, greedy, num_streams=4),
        Workload("random text, 1 stream", story, drawn),
        Workload("random text, 4 streams", story, drawn, num_streams=4),
    ]


def _repeated(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """The share of an answer that stands in the prompt, in the same order."""
    blocks = SequenceMatcher(None, prompt, answer, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= _LEAST_REPEATED) / len(answer)


def _report(model: Path, workloads: list[Workload], runs: dict[tuple[str, str], list[Run]]) -> None:
    table = Table(title=f"speculation, {model.name}", box=None)
    for column in ("workload", "repeats", "off (tok/s)", "auto (tok/s)", "ratio", "acceptance", "same text"):
        table.add_column(column, justify="left" if column == "workload" else "right")
    rows = []
    for workload in workloads:
        off, auto = runs[workload.name, "off"], runs[workload.name, "auto"]
        rates = [statistics.median(one.tokens_per_second for one in side) for side in (off, auto)]
        ratio = statistics.median(b.tokens_per_second / a.tokens_per_second for a, b in zip(off, auto, strict=True))
        acceptance = statistics.median(one.acceptance for one in auto)
        repeated = statistics.median(_repeated(workload.prompt, answer) for one in off for answer in one.answers)
        num_same = sum(a.answers == b.answers for a, b in zip(off, auto, strict=True))
        rows.append(
            {
                "workload": workload.name,
                "repeated": repeated,
                "off_tokens_per_second": rates[0],
                "auto_tokens_per_second": rates[1],
                "ratio": ratio,
                "acceptance": acceptance,
                "rounds_with_same_text": num_same,
                "rounds": len(off),
            }
        )
        same = f"{num_same} of {len(off)}"
        table.add_row(
            workload.name, f"{repeated:.0%}", *(f"{x:.1f}" for x in rates), f"{ratio:.2f}", f"{acceptance:.0%}", same
        )
    Console().print(table)
    write("speculate", {"model": model.name, "rows": rows})


if __name__ == "__main__":
    main()
