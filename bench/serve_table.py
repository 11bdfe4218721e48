"""What `bench.serve` measured, as its table: `python -m bench.serve_table [NAME ...]` prints results/NAME.json.

A ratio is the median of the rounds' ratios: a round asks one contender right after the other, so what the machine was
like that minute is in both, where a median of each over all rounds may come from different minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.results_file import RESULTS

OURS = "mm35local"
PEER = "llama-server"
_WIDTH = 140

Rounds = Sequence[float | None]
"""A value a round; None where that round failed."""


def print_table(document: Mapping[str, Any]) -> None:
    """`document` is what a results file of `bench.serve` holds."""
    rows = document["rows"]
    contenders = list(dict.fromkeys(who for row in rows for who in row["samples"]))
    table = Table(title=f"{document['model']}, {document['threads']} threads, medians", box=None)
    for column in ("workload", "figure", "rounds", *contenders, f"ours / {PEER}"):
        table.add_column(column, justify="left" if column in ("workload", "figure") else "right")
    for row in rows:
        samples: Mapping[str, Rounds] = row["samples"]
        medians = {who: statistics.median(value for value in of if value is not None) for who, of in samples.items()}
        cells = [f"{medians[who]:.3g}" if who in medians else "-" for who in contenders]
        table.add_row(row["workload"], row["figure"], str(max(map(len, samples.values()))), *cells, _ratio(samples))
    Console(width=_WIDTH).print(table)


def _ratio(samples: Mapping[str, Rounds]) -> str:
    pairs = zip(samples.get(OURS, ()), samples.get(PEER, ()), strict=False)  # none, where one was not asked
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return f"{statistics.median(ratios):.3g}" if ratios else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["serve", "serve-q4_0", "serve-pocket"], metavar="NAME")
    for name in parser.parse_args().names:
        print_table(json.loads((RESULTS / f"{name}.json").read_text()))


if __name__ == "__main__":
    main()
