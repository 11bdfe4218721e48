"""Attention on a CPU, by llama.cpp's flash kernel or as matrix products: `python -m bench.attention --model FILE`.

Each way has a process of its own, in turn. Steps of 256 and 40 prompt tokens, of one row, and of 16 rows of as many
sequences that share what is before them, at several depths of one context; medians, in milliseconds. Those of few rows
by the flash kernel also filled up to the 64 that it computes together (`engine.filling`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.results_file import report
from mm35local.engine.api import EngineConfig
from mm35local.engine.backend import Chunk
from mm35local.engine.filling import BLOCK
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.engine.threads import sleep_at_barriers
from mm35local.native.library import Library
from mm35local.types import SamplingParams

_N_CTX = 8192
_NUM_ROWS = 256
_NUM_TURN_ROWS = 40
"""A question within a conversation."""
_NUM_STREAMS = 16
_DEPTHS = (512, 1792, 3584, 7168)
_WAYS = {"products": False, "flash kernel": True}
_TOKENS = tuple(range(1000, 1000 + _NUM_ROWS))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a GGUF file")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    asked = arguments.parse_args()
    sleep_at_barriers(asked.threads)
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(asked.rounds):
        for way, flash_attention in _WAYS.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                measured = pool.submit(_measure, asked.model, asked.threads, flash_attention).result()
            for (name, fill_to), milliseconds in measured.items():
                samples[f"{name}, {way}{', filled' if fill_to else ''}"].append(milliseconds)
    report("attention", "ms", dict(sorted(samples.items())))


def _measure(model: Path, num_threads: int, flash_attention: bool) -> dict[tuple[str, int], float]:
    """(step, rows that it is filled up to) to milliseconds."""
    fills = (0, BLOCK) if flash_attention else (0,)
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            model,
            Path(folder) / "log",
            _N_CTX,
            num_slots=_NUM_STREAMS,
            n_batch=_NUM_ROWS,
            num_threads=num_threads,
            flash_attention=flash_attention,
        )
        library = Library(lambda _line: None)  # llama.cpp calls it as long as it computes
        backend = LlamaBackend(library, config, on_progress=lambda _done: True, is_cancelled=lambda _id: False)
        for stream in range(_NUM_STREAMS):
            backend.open(stream, SamplingParams(temperature=0, ignore_eos=True), ())
        measured: dict[tuple[str, int], float] = {}
        for start in range(0, max(_DEPTHS), _NUM_ROWS):
            seconds = _seconds(backend, [Chunk(0, 0, start, _TOKENS, wants_token=False)])
            depth = start + _NUM_ROWS
            if depth in _DEPTHS:
                before = f"{depth:,} tokens before"
                measured[f"{before}: {_NUM_ROWS} of a prompt", 0] = 1e3 * seconds
                measured[f"{before}: 1 of answers", 0] = 1e3 * _decode(backend, depth, 1, 0)
                for fill_to in fills:
                    turn, many = f"{before}: {_NUM_TURN_ROWS} of a prompt", f"{before}: {_NUM_STREAMS} of answers"
                    measured[turn, fill_to] = 1e3 * _turn(backend, depth, fill_to)
                    measured[many, fill_to] = 1e3 * _decode(backend, depth, _NUM_STREAMS, fill_to)
        backend.shutdown()
        del library
    return measured


def _turn(backend: LlamaBackend, depth: int, fill_to: int) -> float:
    """Seconds of the few tokens of a turn; leaves sequence 0 with its first `depth` tokens."""
    seconds = _seconds(backend, [Chunk(0, 0, depth, _TOKENS[:_NUM_TURN_ROWS], wants_token=True)], fill_to)
    backend.trim(0, depth)
    return seconds


def _decode(backend: LlamaBackend, depth: int, num_streams: int, fill_to: int) -> float:
    """Seconds of the fastest of four steps; leaves sequence 0 with its first `depth` tokens."""
    for stream in range(1, num_streams):
        backend.fork(0, stream, depth)
    seconds = min(
        _seconds(
            backend,
            [Chunk(stream, stream, depth + step, (1000,), wants_token=True) for stream in range(num_streams)],
            fill_to,
        )
        for step in range(4)
    )
    backend.trim(0, depth)
    for stream in range(1, num_streams):
        backend.trim(stream, 0)
    return seconds


def _seconds(backend: LlamaBackend, chunks: Sequence[Chunk], fill_to: int = 0) -> float:
    started = time.perf_counter()
    backend.compute(chunks, fill_to=fill_to)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
