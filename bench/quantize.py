"""The converter against llama.cpp's two steps: `python -m bench.quantize [--layers N] [--folder DIR]`.

Two steps are what a user of llama.cpp does: the checkpoint to a BF16 GGUF, then `llama_model_quantize` once per quant,
on all cores. Its own converter cannot read this checkpoint, so ours stands in for the first step; ours is the faster
one, which favours the two steps. The ways take turns, each in a process of its own, on one checkpoint with the real
row lengths (bench/wide_checkpoint.py).

Extrapolation to the whole model: seconds * 125.0e9 / parameters, at the same speed per parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.results_file import write
from bench.wide_checkpoint import WideSizes, write_wide_checkpoint

_QUANTS = {1: ("Q4_K_M",), 3: ("Q4_K_M", "Q5_K_M", "Q8_0")}
_GOALS = {1: 2.0, 3: 3.0}
_MOST_RSS_BYTES = 1.5 * (1 << 30)
_NUM_PARAMETERS_128B = 125.0e9
"""Of the text decoder: MODEL section 1."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one way, once. Bytes are what the process asked of files, mapped ones counted as read once."""

    seconds: float
    peak_rss_bytes: int
    read_bytes: int
    written_bytes: int
    disk_bytes: int
    """What lay in the output folder at the end: an upper bound of the intermediate file and the outputs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quantize", description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="rows of 256: only shows that it runs, and keeps nothing")
    parser.add_argument("--folder", type=Path, help="for some 20 GB of files; default: the system's temporary folder")
    parser.add_argument("--way", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        name, source, out, *quants = arguments.way
        print(json.dumps(asdict(_cost(_WAYS[name], Path(source), Path(out), quants))))
        return
    sizes = WideSizes(arguments.layers, 256, 512, 2048) if arguments.small else WideSizes(arguments.layers)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "checkpoint"
        num_parameters = write_wide_checkpoint(source, sizes)
        costs = _all_costs(source, Path(folder) / "out", arguments.rounds)
    figures = _figures(costs, num_parameters)
    _print(costs, figures)
    if not arguments.small:
        write("quantize", figures | {"sizes": asdict(sizes)})


# --- the two ways, each in a process of its own ---


def _one_pass(source: Path, out: Path, quants: Sequence[str]) -> int:
    """Returns the bytes read through memory maps."""
    from quantize.convert import convert

    convert(source, out, quants)
    return 0


def _two_steps(source: Path, out: Path, quants: Sequence[str]) -> int:
    from bench.requantize import requantize
    from quantize.convert import convert

    (whole,) = convert(source, out, ["BF16"]).files
    for name in quants:
        requantize(whole.path, name, out / f"{name}.gguf")
    return whole.num_bytes * len(quants)


_WAYS: dict[str, Callable[[Path, Path, Sequence[str]], int]] = {"one pass": _one_pass, "two steps": _two_steps}


def _cost(way: Callable[[Path, Path, Sequence[str]], int], source: Path, out: Path, quants: Sequence[str]) -> Cost:
    start = time.perf_counter()
    mapped_bytes = way(source, out, quants)
    seconds = time.perf_counter() - start
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return Cost(
        seconds,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        int(io["rchar"]) + mapped_bytes,
        int(io["wchar"]),
        sum(path.stat().st_size for path in out.iterdir()),
    )


def _all_costs(source: Path, out: Path, num_rounds: int) -> dict[tuple[str, int], list[Cost]]:
    costs: dict[tuple[str, int], list[Cost]] = {(way, count): [] for count in _QUANTS for way in _WAYS}
    for _ in range(num_rounds):
        for way, count in costs:
            command = [sys.executable, "-m", "bench.quantize", "--way", way, str(source), str(out), *_QUANTS[count]]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
            costs[way, count].append(Cost(**json.loads(done.stdout.splitlines()[-1])))
            shutil.rmtree(out)
    return costs


# --- the figures ---


def _figures(costs: dict[tuple[str, int], list[Cost]], num_parameters: int) -> dict[str, object]:
    num_cores = len(os.sched_getaffinity(0))
    seconds = {key: statistics.median(cost.seconds for cost in runs) for key, runs in costs.items()}
    rows = [
        {
            "way": way,
            "quants": _QUANTS[count],
            "runs": [asdict(cost) for cost in costs[way, count]],
            "million_parameters_per_second": num_parameters / median / 1e6,
            "million_parameters_per_second_and_core": num_parameters / median / 1e6 / num_cores,
            "hours_for_125e9_parameters": median * _NUM_PARAMETERS_128B / num_parameters / 3600,
        }
        for (way, count), median in seconds.items()
    ]
    ratios = {count: seconds["two steps", count] / seconds["one pass", count] for count in _QUANTS}
    return {
        "num_parameters": num_parameters,
        "num_cores": num_cores,
        "ways": rows,
        "times_faster_than_two_steps": ratios,
        "goals": _GOALS,
        "peak_rss_goal_bytes": _MOST_RSS_BYTES,
    }


def _print(costs: dict[tuple[str, int], list[Cost]], figures: dict[str, object]) -> None:
    rows, ratios = figures["ways"], figures["times_faster_than_two_steps"]
    assert isinstance(rows, list)
    assert isinstance(ratios, dict)
    table = Table(title=f"{figures['num_parameters']:,} parameters on {figures['num_cores']} cores", box=None)
    for column in ("way", "quants", "s", "M/s", "M/s a core", "peak RSS MiB", "read GB", "written GB", "128B, hours"):
        table.add_column(column, justify="left" if column in ("way", "quants") else "right")
    for row, runs in zip(rows, costs.values(), strict=True):
        table.add_row(
            row["way"],
            " ".join(row["quants"]),
            f"{statistics.median(cost.seconds for cost in runs):.1f}",
            f"{row['million_parameters_per_second']:.1f}",
            f"{row['million_parameters_per_second_and_core']:.1f}",
            f"{max(cost.peak_rss_bytes for cost in runs) / 2**20:.0f}",
            f"{runs[0].read_bytes / 1e9:.2f}",
            f"{runs[0].written_bytes / 1e9:.2f}",
            f"{row['hours_for_125e9_parameters']:.2f}",
        )
    Console().print(table)
    for count, ratio in ratios.items():
        print(f"{count} output(s): {ratio:.2f} x the two steps (goal {_GOALS[count]:.0f} x)")


if __name__ == "__main__":
    main()
