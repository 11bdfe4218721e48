"""Where the time of a decode step goes: `python -m bench.step --model FILE [--steps N]`.

One engine core in this process, 1 and 16 streams, no speculation. A step is a llama_decode, one sampler a stream, and
Python around them: admission, schedule, batch, books, events; then the events are pickled, as for the pipe.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.results_file import report
from mm35local.engine.api import EngineConfig, Submit, Tokens
from mm35local.engine.core import EngineCore
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.engine.sampler import Sampler
from mm35local.engine.threads import sleep_at_barriers
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.types import Prompt, SamplingParams

_NUM_SLOTS = 16
_N_CTX = 8192
_N_BATCH = 256
_PROMPT_TOKENS = 100
_MICRO = 1e6
_SAMPLINGS = {
    "greedy": SamplingParams(temperature=0, ignore_eos=True),
    "drawn": SamplingParams(seed=1, ignore_eos=True),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="a GGUF file")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=100)
    asked = arguments.parse_args()
    sleep_at_barriers(asked.threads)  # read when llama.cpp is loaded: what computes is a process of its own
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        report("step", "us", pool.submit(measure, asked.model, asked.threads, asked.steps).result())


def measure(model: Path, num_threads: int, num_steps: int) -> dict[str, list[float]]:
    """Microseconds of each step by what they went into."""
    samples: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            model, Path(folder) / "log", _N_CTX, num_slots=_NUM_SLOTS, n_batch=_N_BATCH, num_threads=num_threads
        )
        library = Library(lambda _line: None)  # llama.cpp calls it as long as it computes
        backend = LlamaBackend(library, config, on_progress=lambda _done: True, is_cancelled=lambda _id: False)
        for kind, params in _SAMPLINGS.items():
            for num_streams in (1, _NUM_SLOTS):
                for part, micros in _steps(backend, num_streams, params, num_steps).items():
                    samples[f"{num_streams} {kind}: {part}"] = micros
        backend.shutdown()
        del library
    return dict(samples)


def _steps(backend: LlamaBackend, num_streams: int, params: SamplingParams, num_steps: int) -> dict[str, list[float]]:
    core = EngineCore(backend, n_ctx=_N_CTX, num_slots=_NUM_SLOTS, n_batch=_N_BATCH, max_waiting=_NUM_SLOTS)
    for number in range(num_streams):
        core.submit(Submit(number, Prompt((1, 1000 + number, *range(1000, 1000 + _PROMPT_TOKENS))), params))
    while sum(isinstance(event, Tokens) for event in core.step()) < num_streams:
        pass  # until every prompt is computed
    seconds: dict[str, float] = defaultdict(float)
    parts: dict[str, list[float]] = defaultdict(list)
    with (
        patch.object(Context, "decode", _timed(Context.decode, seconds, "decode")),
        patch.object(Sampler, "sample", _timed(Sampler.sample, seconds, "sampling")),
    ):
        for _ in range(num_steps):
            seconds.clear()
            started = time.perf_counter()
            events = core.step()
            stepped = time.perf_counter()
            ForkingPickler.dumps(events)
            seconds["Python"] = stepped - started - seconds["decode"] - seconds["sampling"]
            seconds["messages"] = time.perf_counter() - stepped
            for part, value in seconds.items():
                parts[part].append(_MICRO * value)
    core.cancel_all()
    core.clear_cache()
    return parts


def _timed(function: Callable[..., Any], seconds: dict[str, float], part: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **options)
        seconds[part] += time.perf_counter() - started
        return result

    return call


if __name__ == "__main__":
    main()
