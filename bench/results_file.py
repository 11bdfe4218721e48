"""Where a measurement ends up: a table on the terminal, and the same rows with the machine's description on disk."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def report(name: str, unit: str, samples: Mapping[str, Sequence[float]]) -> None:
    """Print min, median and max of each row of `samples`, and write them all to results/NAME.json."""
    table = Table(title=name, box=None)
    table.add_column("what")
    for column in ("min", "median", "max"):
        table.add_column(f"{column} ({unit})", justify="right")
    for what, values in samples.items():
        table.add_row(what, *(f"{value:.3g}" for value in (min(values), statistics.median(values), max(values))))
    Console().print(table)
    write(name, {"unit": unit, "samples": {k: list(v) for k, v in samples.items()}})


def write(name: str, figures: Mapping[str, object]) -> None:
    """Keep the figures of one benchmark, with the machine's description, in results/NAME.json."""
    document = {"name": name, "machine": machine(), **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def machine() -> dict[str, str | int]:
    """What the figures were measured on, and when."""
    return {
        "cpu": _cpu_name(),
        "num_cpus": os.cpu_count() or 0,
        "ram_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
