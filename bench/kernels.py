"""Our quantisers against ggml's, and our FP8 decoder against numpy's take, on one core: `python -m bench.kernels`.

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
from quantize.fp8 import scaled_table
from quantize.kernels import choose, machine
from quantize.kernels.machine import Kernel, compile_kernel
from quantize.kernels.probe import probe_rows

_ROWS, _ROW_LENGTH = 64, 12_288
_BLOCK = 1 << 20
"""Elements that are decoded at a time."""
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
    decoding = _decoding_figures(num_rounds)
    print(
        f"FP8: take {decoding['take_ns_per_parameter']:.2f} ns, ours {decoding['ours_ns_per_parameter']:.2f} ns, "
        f"compiled in {decoding['compile_seconds']:.2f} s"
    )
    write("kernels", {"types": types, "fp8": decoding})


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


def _decoding_figures(num_rounds: int) -> dict[str, float]:
    """Of blocks as long as the converter's, with the scale of a whole tensor."""
    begin = time.perf_counter()
    machine.compile_lookup()
    compile_seconds = time.perf_counter() - begin
    table = scaled_table(0.0123)
    codes = np.random.default_rng(0).integers(0, 256, (_BLOCK // _ROW_LENGTH, _ROW_LENGTH), np.uint8)
    choose.decode(table, codes, is_compiled=True)
    takes, ours = [], []
    for _ in range(num_rounds):
        takes.append(_ns_per_parameter(lambda: choose.decode(table, codes, is_compiled=False), codes))
        ours.append(_ns_per_parameter(lambda: choose.decode(table, codes, is_compiled=True), codes))
    return {
        "take_ns_per_parameter": statistics.median(takes),
        "ours_ns_per_parameter": statistics.median(ours),
        "compile_seconds": compile_seconds,
    }


def _ns_per_parameter(work: Callable[[], object], rows: NDArray[np.float32] | NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    work()
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
