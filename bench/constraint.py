"""What a grammar costs: `python -m bench.constraint [--rounds N]`.

First the masks alone, at the vocabulary of Mistral Medium 3.5 (131,072): how long each takes to make, which happens
beside llama_decode, and to apply, which is all that the hot path sees; CPU time, so that other programs do not count.
Then four streams of JSON by a schema against the same four without one, on the embedded model.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from bench.engine_runs import Run, Workload, embedded, load, open_engine, run
from bench.results_file import write
from mm35local.engine.constraint import Constraint, ConstraintCompiler, Pieces
from mm35local.types import Grammar, SamplingParams

_N_VOCAB = 131_072
_FIRST_BYTE = 3
_LARK = (
    'start: %json {"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": '
    '{"type": "string"}}, "size": {"type": "integer"}}, "required": ["name", "tags", "size"]}'
)
_JSON = '{"name": "a longer piece of text, as names are", "tags": ["one", "two", "three"], "size": 1234}'
_LIST = Grammar('start: %json {"type": "array", "items": {"type": "string"}, "minItems": 200}')


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    num_rounds = arguments.parse_args().rounds
    micros = _masks(50)
    table = Table(title=f"one mask, vocabulary of {_N_VOCAB:,}, CPU time", box=None)
    for column in ("what", "median (µs)", "max (µs)"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, values in micros.items():
        table.add_row(what, f"{statistics.median(values):.0f}", f"{max(values):.0f}")
    Console().print(table)
    streams = asyncio.run(_streams(num_rounds))
    rates = {name: statistics.median(r.tokens_per_second for r in runs) for name, runs in streams.items()}
    pairs = zip(streams["schema"], streams["free"], strict=True)
    ratio = statistics.median(schema.tokens_per_second / free.tokens_per_second for schema, free in pairs)
    Console().print(f"4 streams: {rates['schema']:.1f} tok/s by a schema, {rates['free']:.1f} free, ratio {ratio:.2f}")
    masks = {what: {"median_us": statistics.median(values), "max_us": max(values)} for what, values in micros.items()}
    write("constraint", {"masks": masks, "streams": {**rates, "ratio": ratio, "rounds": num_rounds}})


def _masks(num_answers: int) -> dict[str, list[float]]:
    """Microseconds of each call, over `num_answers` times the tokens of _JSON."""
    words = [b"%x" % number for number in range(_N_VOCAB - _FIRST_BYTE - 256)]
    tokens = [b"<eos>", b"<turn>", b"<call>", *(bytes((byte,)) for byte in range(256)), *words]
    compiler = ConstraintCompiler(Pieces(tokens, [0, 1, 2], 0, _ids), [0])
    logits = np.zeros(_N_VOCAB, dtype=np.float32)
    micros: dict[str, list[float]] = defaultdict(list)
    for _ in range(num_answers):
        constraint = compiler.compile(Grammar(_LARK))
        for token_id in _ids(_JSON):
            logits.fill(0)
            _time_one(constraint, logits, token_id, micros)
    return micros


def _time_one(
    constraint: Constraint, logits: npt.NDArray[np.float32], token_id: int, micros: dict[str, list[float]]
) -> None:
    started = time.thread_time()
    constraint.prepare()
    made = time.thread_time()
    constraint.check()
    constraint.mask(logits)
    applied = time.thread_time()
    constraint.feed(token_id)
    fed = time.thread_time()
    micros["made beside the decode"].append((made - started) * 1e6)
    micros["hot path: applied"].append((applied - made) * 1e6)
    micros["hot path: fed"].append((fed - applied) * 1e6)


def _ids(text: str) -> list[int]:
    return [_FIRST_BYTE + byte for byte in text.encode()]


async def _streams(num_rounds: int) -> dict[str, list[Run]]:
    """The embedded model, one engine without speculation, in turn with and without a schema."""
    with tempfile.TemporaryDirectory() as folder:
        client = open_engine(embedded(), Path(folder) / "engine.log", "off")
        try:
            await load(client)
            prompt = tuple(await client.tokenize(["A JSON list of two hundred names of cities:\n"]))
            params = {
                "schema": SamplingParams(temperature=0.7, seed=1, max_tokens=96, grammar=_LIST),
                "free": SamplingParams(temperature=0.7, seed=1, max_tokens=96, ignore_eos=True),
            }
            runs: dict[str, list[Run]] = defaultdict(list)
            for _ in range(num_rounds):
                for name, asked in params.items():
                    runs[name].append(await run(client, Workload(name, prompt, asked, num_streams=4)))
        finally:
            await client.aclose()
    return runs


if __name__ == "__main__":
    main()
