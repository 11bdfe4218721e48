"""What speculation brings and costs: `python -m bench.speculate [--rounds N] [--model GGUF]`.

Engines that guess and engines that do not, as `mm35 serve --parallel 1` (and 4) plans them, answer the same requests in
turn: edits of code that repeat most of a file, and text drawn at random, where no guess can be right.
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

_ROOT = Path(__file__).parents[1]
_EDITS = (
    ("bench/results_file.py", "RESULTS", "RESULT_DIR", "FOLDER"),
    ("mm35local/engine/fairness.py", "client", "user", "caller"),
    ("mm35local/engine/log_tail.py", "path", "file", "place"),
)
"""A file, a name in it, what it was called in an edit before, and what it shall be called."""
_FILE = "Here is a file:\n\n```python\n{0}```\n\n"
_RENAMED = "The same file with `{0}` renamed to `{1}`:\n\n```python\n{2}"
_NUM_FIRST_LINES = 3
"""Of the answer, given: a small model goes on copying then."""
_LEAST_REPEATED = 4
"""Tokens in a row that count as repeated."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--model", type=Path, default=None)
    arguments.add_argument("--name", default="speculate", help="results go to bench/results/NAME.json")
    asked = arguments.parse_args()
    asyncio.run(_main(asked.model or embedded(), asked.rounds, asked.name))


async def _main(model: Path, num_rounds: int, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            (speculate, num_slots): open_engine(
                model, Path(folder) / f"{speculate}-{num_slots}.log", speculate, num_slots
            )
            for num_slots in (1, 4)
            for speculate in ("off", "auto")
        }
        try:
            for engine in engines.values():
                await load(engine)
            workloads = await _workloads(engines["off", 1])
            runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
            for _ in range(num_rounds):
                for workload in workloads:
                    for speculate in ("off", "auto"):
                        engine = engines[speculate, workload.num_streams]
                        runs[workload.name, speculate].append(await run(engine, workload))
        finally:
            for engine in engines.values():
                await engine.aclose()
    _report(model, workloads, runs, name)


async def _workloads(engine: EngineClient) -> list[Workload]:
    greedy = SamplingParams(temperature=0, max_tokens=160, ignore_eos=True)
    drawn = SamplingParams(temperature=1.5, seed=7, max_tokens=96, ignore_eos=True)
    edits = [(Path(file).name, tuple(await engine.tokenize([_edit(file, *names)]))) for file, *names in _EDITS]
    story = tuple(await engine.tokenize(["Once upon a time there was a"]))
    return [
        *(Workload(f"edit of {name}, 1 stream", edit, greedy) for name, edit in edits),
        *(Workload(f"edit of {name}, 4 streams", edit, greedy, num_streams=4) for name, edit in edits),
        Workload("random text, 1 stream", story, drawn),
        Workload("random text, 4 streams", story, drawn, num_streams=4),
    ]


def _edit(file: str, name: str, earlier_name: str, new_name: str) -> str:
    """As an agent's history has it, with an edit before: without one a small model soon stops copying."""
    code = (_ROOT / file).read_text()
    start = "".join(code.replace(name, new_name).splitlines(keepends=True)[:_NUM_FIRST_LINES])
    before = _RENAMED.format(name, earlier_name, code.replace(name, earlier_name) + "```\n\n")
    return _FILE.format(code) + before + _RENAMED.format(name, new_name, start)


def _repeated(prompt: Sequence[int], answer: Sequence[int]) -> float:
    """The share of an answer that stands in the prompt, in the same order."""
    blocks = SequenceMatcher(None, prompt, answer, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= _LEAST_REPEATED) / len(answer)


def _report(model: Path, workloads: list[Workload], runs: dict[tuple[str, str], list[Run]], name: str) -> None:
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
    write(name, {"model": model.name, "rows": rows})


if __name__ == "__main__":
    main()
