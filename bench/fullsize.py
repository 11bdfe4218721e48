"""The true size without a checkpoint: `python -m bench.fullsize [--layers 2 --device cpu]`.

Writes a GGUF of Mistral Medium 3.5's geometry with random blocks, loads it by plan, and measures. The blocks' scales
give weights of about 0.01 around 0, so activations stay finite; the answers mean nothing. The file is removed at the
end, also of an interrupted run, unless --keep. Several folders take a part each, for where one is too small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.random_gguf import write_random_gguf
from bench.results_file import RESULTS, machine
from mm35local.engine.api import EngineConfig
from mm35local.engine.client import EngineClient
from mm35local.engine.measured import compare
from mm35local.engine.measurement import Rate, loaded, measure_depth, measure_streams
from mm35local.errors import GIB
from mm35local.models.bandwidth import copy_bandwidth
from mm35local.models.configure import configure
from mm35local.models.geometry import Geometry, from_shape
from mm35local.models.gpus import Machine, detect_machine
from mm35local.models.memory import padded_cells
from mm35local.models.mixes import Shape
from mm35local.models.plan import Plan, Wish, make_plan

_TRUE_SHAPE = Shape(88, 12288, 28672, 96, 8, 128, 131072, 262144)


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the files go on the way out
    shape = replace(_TRUE_SHAPE, n_layer=options.layers)
    here = detect_machine()
    here = replace(here, gpus=()) if options.device == "cpu" else here
    bandwidth = copy_bandwidth()
    results = []
    for quant in options.quants.split(","):
        geometry = from_shape(f"Medium-{options.layers}-layers-{quant}", shape, quant)
        if geometry is None:
            sys.exit(f"--quants {quant}: no mix of that name")
        with _folders_in(options.folders, keep=options.keep) as folders:
            started = time.perf_counter()
            path = write_random_gguf(folders, shape, quant)
            seconds = time.perf_counter() - started
            print(f"{geometry.name}: {geometry.num_bytes / GIB:.1f} GiB written in {seconds:.0f} s", flush=True)
            kv_types = options.kv.split(",")
            results += [_one(path, geometry, here, kv_type, options, bandwidth) for kv_type in kv_types]
    where = here.gpus[0].name if here.gpus else "cpu"
    _save(where, options.layers, results)


@contextmanager
def _folders_in(places: Sequence[str], *, keep: bool) -> Iterator[list[Path]]:
    """A new folder in each place, gone at the end, whatever ends it."""
    folders = [Path(tempfile.mkdtemp(prefix="mm35-fullsize-", dir=place)) for place in places]
    try:
        yield folders
    finally:
        for folder in [] if keep else folders:
            shutil.rmtree(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=88)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--folders", nargs="+", default=[tempfile.gettempdir()], help="where the parts are written")
    parser.add_argument("--quants", default="IQ4_XS,Q4_K_M")
    parser.add_argument("--kv", default="f16,q8_0")
    parser.add_argument("--depths", default="0,8192,32768")
    parser.add_argument("--streams", default="1,2,4,8,16")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--keep", action="store_true", help="leave the file where it is")
    options = parser.parse_args()
    if not 1 <= options.layers <= _TRUE_SHAPE.n_layer:
        parser.error(f"--layers {options.layers}: expected 1 to {_TRUE_SHAPE.n_layer}")
    return options


def _one(
    path: Path, geometry: Geometry, here: Machine, kv_type: str, options: argparse.Namespace, bandwidth: float
) -> dict[str, Any]:
    depths, streams = _numbers(options.depths), _numbers(options.streams)
    n_ctx = 1 + max(
        max(depths, default=0) + options.prompt + options.tokens,
        max(streams, default=0) * (options.prompt + options.tokens),
    )
    plan = make_plan(geometry, here, Wish(n_ctx=padded_cells(n_ctx), kv_type=kv_type, num_slots=max([1, *streams])))
    asked = EngineConfig(path, path.with_suffix(".log"), plan.n_ctx, num_slots=max([1, *streams]))
    config = configure(asked, plan, here)
    limit = sum(gpu.bandwidth for gpu in plan.gpus) or bandwidth
    return asyncio.run(_measure(config, plan, depths, streams, options, limit))


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


async def _measure(
    config: EngineConfig,
    plan: Plan,
    depths: list[int],
    streams: list[int],
    options: argparse.Namespace,
    limit: float,
) -> dict[str, Any]:
    engine = EngineClient(config)
    try:
        await loaded(engine)
        info = engine.status.info
        assert info is not None, "a loaded engine has its facts"
        measured = compare(info.planned, info.buffers)
        found: dict[str, Any] = {
            "model": plan.geometry.name,
            "kv": plan.kv_type,
            "n_ctx": plan.n_ctx,
            "device": info.device,
            "bandwidth": round(limit),
            "load_seconds": info.load_seconds,
            "planned_decode": plan.decode,
            "memory": [[each.kind, each.planned_bytes, each.allocated_bytes] for each in measured],
            "buffers": info.buffers,
            "shares": [[gpu.name, share.num_bytes] for gpu, share in zip(plan.gpus, plan.shares, strict=True)],
            "rates": [],
        }
        print(f"KV {plan.kv_type}: loaded in {info.load_seconds:.1f} s on {info.device}", flush=True)
        print(*(f"  {each}" for each in measured), sep="\n", flush=True)
        for depth in depths:
            _tell(found, plan, await measure_depth(engine, depth, options.prompt, options.tokens), limit)
        for count in streams:
            _tell(found, plan, await measure_streams(engine, count, options.prompt, options.tokens), limit)
        return found
    finally:
        await engine.aclose()


def _tell(found: dict[str, Any], plan: Plan, rate: Rate, limit: float) -> None:
    step_bytes = plan.decode_weight_bytes + plan.kv_bytes * rate.depth / plan.n_ctx * rate.num_streams
    share = rate.decode / rate.num_streams * step_bytes / limit
    found["rates"].append([rate.depth, rate.num_streams, rate.prefill, rate.decode, share])
    print(
        f"  depth {rate.depth:>6,}, {rate.num_streams:>2} at once: prefill {rate.prefill:8.2f} tok/s, "
        f"decode {rate.decode:7.2f} tok/s, {share:.0%} of the memory's bandwidth",
        flush=True,
    )


def _save(where: str, num_layers: int, results: list[dict[str, Any]]) -> None:
    name = f"fullsize-{where.lower().replace(' ', '-')}-{num_layers}-layers"
    document = {"name": name, "machine": machine(), "results": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: results/{name}.json")


if __name__ == "__main__":
    main()
