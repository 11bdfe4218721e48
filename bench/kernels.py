"""Our quantisers against ggml's, on one core: `python -m bench.kernels [--rounds N]`.

Nanoseconds a parameter of normal weights, the ways in turn; then both quantise rows with edge cases among them
(quantize/kernels/probe.py), of many seeds, and the bytes that differ are counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.results_file import write
from mm35local.native import quant
from quantize.kernels import choose
from quantize.kernels.machine import Kernel, compile_kernel
from quantize.kernels.probe import probe_rows

_ROWS, _ROW_LENGTH = 64, 12_288
_NUM_SEEDS = 40


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    num_rounds = arguments.parse_args().rounds
    types = {quant.type_name(kind).upper(): _figures(kind, num_rounds) for kind in choose.KERNEL_TYPES}
    table = Table(box=None)
    for column in ("type", "ggml ns", "ours ns", "times", "compiled in s", "differing bytes", "of"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for name, row in types.items():
        ggml, ours = row["ggml_ns_per_parameter"], row["ours_ns_per_parameter"]
        table.add_row(
            name, f"{ggml:.1f}", f"{ours:.2f}", f"{ggml / ours:.1f}", f"{row['compile_seconds']:.2f}",
            f"{row['differing_bytes']:,.0f}", f"{row['compared_bytes']:,.0f}",
        )  # fmt: skip
    Console().print(table)
    write("kernels", {"types": types})


def _figures(ggml_type: int, num_rounds: int) -> dict[str, float]:
    begin = time.perf_counter()
    kernel = compile_kernel(choose.emitter(ggml_type))
    compile_seconds = time.perf_counter() - begin
    rows = np.random.default_rng(0).standard_normal((_ROWS, _ROW_LENGTH), np.float32)
    ggml, ours = [], []
    for _ in range(num_rounds):
        ggml.append(_ns_per_parameter(lambda: quant.quantize_rows(ggml_type, rows), rows))
        ours.append(_ns_per_parameter(lambda: choose.run(kernel, ggml_type, rows), rows))
    differing, compared = _differing_bytes(kernel, ggml_type)
    return {
        "ggml_ns_per_parameter": statistics.median(ggml),
        "ours_ns_per_parameter": statistics.median(ours),
        "compile_seconds": compile_seconds,
        "differing_bytes": differing,
        "compared_bytes": compared,
    }


def _ns_per_parameter(quantise: Callable[[], object], rows: NDArray[np.float32]) -> float:
    begin = time.perf_counter()
    quantise()
    return (time.perf_counter() - begin) / rows.size * 1e9


def _differing_bytes(kernel: Kernel, ggml_type: int) -> tuple[int, int]:
    differing = compared = 0
    for seed in range(1, _NUM_SEEDS + 1):
        rows = probe_rows(seed)
        packed = quant.quantize_rows(ggml_type, rows)
        differing += int((packed != choose.run(kernel, ggml_type, rows)).sum())
        compared += packed.nbytes
    return differing, compared


if __name__ == "__main__":
    main()
