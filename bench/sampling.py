"""What drawing a token takes, by the vocabulary: ours and llama.cpp's samplers in turn. `python -m bench.sampling`"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from bench.llama_samplers import LlamaSampler
from bench.results_file import write
from mm35local.engine.sampler import Sampler, Workspace
from mm35local.types import SamplingParams

_N_VOCABS = (49_152, 131_072)
_NUM_LIKELY = 50
_PARAMS = {
    "temperature 0.7": SamplingParams(seed=1),
    "top_p 0.95": SamplingParams(seed=1, top_p=0.95),
    "min_p 0.05": SamplingParams(seed=1, min_p=0.05),
    "top_k 40, top_p 0.95": SamplingParams(seed=1, top_k=40, top_p=0.95),
    "presence penalty, top_p 0.95": SamplingParams(seed=1, presence_penalty=0.5, top_p=0.95),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--draws", type=int, default=200)
    num_draws = arguments.parse_args().draws
    samples: dict[str, dict[str, list[float]]] = {}
    for n_vocab in _N_VOCABS:
        for name, params in _PARAMS.items():
            samples[f"{name}, {n_vocab:,} tokens"] = measure(params, some_logits(n_vocab), num_draws)
    table = Table(title="One token drawn, medians (us)", box=None)
    for column in ("what", "mm35local", "llama.cpp", "ours / llama.cpp"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, by_whom in samples.items():
        ours, theirs = (statistics.median(by_whom[whose]) for whose in ("mm35local", "llama.cpp"))
        table.add_row(what, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}")
    Console().print(table)
    quartiles = {what: {w: statistics.quantiles(us, n=4) for w, us in each.items()} for what, each in samples.items()}
    write("sampling", {"unit": "us", "quartiles": quartiles})


def some_logits(n_vocab: int) -> npt.NDArray[np.float32]:
    """As a model's that is rather sure: some tokens stand out, one most of all."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2.5, n_vocab).astype(np.float32)
    likely = rng.choice(n_vocab, _NUM_LIKELY, replace=False)
    logits[likely] += rng.exponential(4, _NUM_LIKELY).astype(np.float32) + 6
    logits[likely[0]] += 6
    return logits


def measure(params: SamplingParams, logits: npt.NDArray[np.float32], num_draws: int) -> dict[str, list[float]]:
    """Microseconds of each draw, by whose it is."""
    n_vocab = len(logits)
    ours = Sampler(params, Workspace(n_vocab), prompt=())
    theirs = LlamaSampler(params, n_vocab)
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(num_draws):
        _time(lambda: ours.sample(logits), samples["mm35local"])
        _time(lambda: theirs.sample(logits), samples["llama.cpp"])
    theirs.close()
    return samples


def _time(draw: Callable[[], int], seconds: list[float]) -> None:
    started = time.perf_counter()
    draw()
    seconds.append(1e6 * (time.perf_counter() - started))


if __name__ == "__main__":
    main()
