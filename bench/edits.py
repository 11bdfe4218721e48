"""How many times as fast edits of code come, by what rows cost: `python -m bench.edits [--model GGUF]`.

Changes of this repository's history are replayed through the engine's speculator: a file as it was is the prompt, the
same file after a commit the answer, which every edit that writes a file whole comes to. Nothing is computed and only
the vocabulary of the model is read; what a step of 48 rows costs beside one of a single row is assumed, 1.2 to 5 times
as much, for that differs between machines. `bench.speculate` measures it on this one, with what a small model answers.
"""

from __future__ import annotations

import argparse
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from random import Random
from statistics import geometric_mean

from rich.console import Console
from rich.table import Table

from bench.engine_runs import embedded
from bench.results_file import write
from mm35local.engine.backend import Chunk
from mm35local.engine.request import Request
from mm35local.engine.speculation import MAX_STEP_DRAFTS, NgramDrafter, Speculator
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing
from mm35local.types import SamplingParams

_ROOT = Path(__file__).parents[1]
_FILE = "Here is a file:\n\n```python\n{0}```\n\nThe same file, changed:\n\n```python\n"
_NUM_LINES = range(60, 301)
_LEAST_ALIKE, _MOST_ALIKE = 0.6, 0.985
"""Lines of the file that a change leaves: less is another file, more hardly an edit."""
_COSTS = (1.2, 2.0, 3.0, 5.0)
_STEP_SECONDS = 0.03
_NOISE = 0.05
"""Of measured steps: standard deviation of the logarithm."""


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    before: str
    after: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a GGUF file")
    parser.add_argument("--changes", type=int, default=60)
    asked = parser.parse_args()
    path = asked.model or embedded()
    model = Model(Library(lambda _line: None), path, Placing(is_dry=True), on_progress=lambda _done: True)
    edits = [
        (model.tokenize(_FILE.format(change.before)), model.tokenize(f"{change.after}```\n"))
        for change in islice(_changes(), asked.changes)
    ]
    _report(path, edits, {cost: _replay_all(edits, cost) for cost in _COSTS})


def _changes() -> Iterator[Change]:
    """The newest first, one of each commit."""
    for commit in _git("log", "--no-merges", "--format=%h").split():
        for file in _git("show", "--name-only", "--diff-filter=M", "--format=", commit, "--", "*.py").split():
            before, after = _git("show", f"{commit}^:{file}"), _git("show", f"{commit}:{file}")
            lines, changed = before.splitlines(), after.splitlines()
            alike = SequenceMatcher(None, lines, changed, autojunk=False).ratio()
            if len(lines) in _NUM_LINES and _LEAST_ALIKE <= alike <= _MOST_ALIKE:
                yield Change(f"{commit} {file}", before, after)
                break


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True).stdout


def _replay_all(edits: list[tuple[list[int], list[int]]], cost: float) -> list[float]:
    """In turn, as one server meets them: what one teaches the next begins with."""
    speculator = Speculator([NgramDrafter()])
    return [_replay(speculator, prompt, answer, cost, number) for number, (prompt, answer) in enumerate(edits, 1)]


def _replay(speculator: Speculator, prompt: list[int], answer: list[int], cost: float, number: int) -> float:
    """How many times as fast `answer` comes as a token a step, the first one given."""
    random, num_tokens = Random(number), len(prompt) + len(answer)
    request = Request(number, number, SamplingParams(), [*prompt, answer[0]], len(prompt), num_tokens, slot=0)
    seconds = 0.0
    while (num_said := request.num_generated) < len(answer):
        last = len(request.tokens) - 1
        chunk = Chunk(number, 0, last, request.tokens[last:], wants_token=True)
        [drafted] = speculator.add_drafts([chunk], {number: request}, MAX_STEP_DRAFTS)
        right = [draft == token for draft, token in zip(drafted.drafts, answer[num_said:], strict=False)]
        sampled = answer[num_said : num_said + (right.index(False) if False in right else len(right)) + 1]
        took = _STEP_SECONDS * (1 + (cost - 1) * len(drafted.drafts) / MAX_STEP_DRAFTS)
        took *= math.exp(random.gauss(0, _NOISE))
        speculator.record_step(drafted.num_rows, took)
        speculator.observe(drafted, sampled)
        request.tokens += sampled
        seconds += took
    speculator.close(number)
    return (len(answer) - 1) * _STEP_SECONDS / seconds


def _report(path: Path, edits: list[tuple[list[int], list[int]]], gains: dict[float, list[float]]) -> None:
    mean_tokens = sum(len(answer) for _, answer in edits) / len(edits)
    table = Table(title=f"{len(edits)} edits of {mean_tokens:.0f} tokens, vocabulary of {path.name}", box=None)
    for column in ("48 rows cost, steps of one", "times as fast, geometric mean", "slowest", "fastest"):
        table.add_column(column, justify="right")
    rows = []
    for cost, each in gains.items():
        figures = {"geometric_mean": geometric_mean(each), "slowest": min(each), "fastest": max(each)}
        table.add_row(f"{cost:g}", *(f"{value:.1f}" for value in figures.values()))
        rows.append({"cost_of_48_rows": cost, **figures})
    Console().print(table)
    write("edits", {"vocabulary": path.name, "num_edits": len(edits), "mean_tokens": mean_tokens, "rows": rows})


if __name__ == "__main__":
    main()
