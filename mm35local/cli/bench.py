"""`mm35 bench`: how fast one model is here, against what this machine's memory could deliver."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.cli.options import (
    Json,
    Kv,
    Model,
    ModelArgument,
    Rpc,
    SplitMode,
    Threads,
    UseGpu,
    one_model,
    settings_of,
)
from mm35local.errors import GIB, UsageError

if TYPE_CHECKING:
    from mm35local.engine.api import EngineConfig, EngineInfo
    from mm35local.engine.measurement import Rate
    from mm35local.models.plan import Plan


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    context: typer.Context,
    named: ModelArgument = None,
    model: Model = None,
    depths: Annotated[str, typer.Option(metavar="N,N", help="Tokens in the context before.")] = "0,1024",
    streams: Annotated[str, typer.Option(metavar="N,N", help="Answers at the same time.")] = "4",
    prompt: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of a prompt.")] = 128,
    tokens: Annotated[int, typer.Option(min=2, metavar="N", help="Tokens of an answer.")] = 32,
    kv: Kv = None,
    split: SplitMode = None,
    threads: Threads = None,
    gpu: UseGpu = None,
    rpc: Rpc = None,
    as_json: Json = False,
) -> None:
    """Measure load time, prefill and decode, one stream and many, against the memory's bandwidth."""
    import asyncio

    from mm35local.cli.prepare import prepare
    from mm35local.cli.serve import engine_config
    from mm35local.models.bandwidth import copy_bandwidth

    at_depths, at_once = _numbers("--depths", depths, 0), _numbers("--streams", streams, 1)
    n_ctx = max(max(at_depths, default=0) + prompt + tokens, max(at_once, default=1) * (prompt + tokens)) + 1
    wish = settings_of(context, model=one_model(named, model), ctx=max(n_ctx, 256), parallel=max([1, *at_once]))
    prepared = prepare(wish)
    bandwidth = copy_bandwidth()
    config = engine_config(prepared, wish)
    info, rates = asyncio.run(_measure(config, at_depths, at_once, prompt, tokens))
    report = to_json(prepared.choice.path.name, prepared.plan, info, rates, bandwidth)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)


def _numbers(flag: str, text: str, least: int) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"{flag} {text}: expected whole numbers with commas between them", f"{flag} 1,4") from error
    if any(number < least for number in numbers):
        raise UsageError(f"{flag} {text}: {min(numbers)} is less than {least}", f"{flag} 1,4")
    return numbers


async def _measure(
    config: EngineConfig, depths: list[int], streams: list[int], num_prompt: int, num_decode: int
) -> tuple[EngineInfo, list[Rate]]:
    """In the engine's own process, as `mm35 serve` runs it."""
    from mm35local.engine.client import EngineClient
    from mm35local.engine.measurement import loaded, measure_depth, measure_streams

    engine = EngineClient(config)
    try:
        await loaded(engine)
        info = engine.status.info
        assert info is not None, "a loaded engine has its facts"
        rates = []
        for depth in depths:
            _say(f"{depth} tokens deep")
            rates.append(await measure_depth(engine, depth, num_prompt, num_decode))
        for num_streams in streams:
            _say(f"{num_streams} at once")
            rates.append(await measure_streams(engine, num_streams, num_prompt, num_decode))
        return info, rates
    finally:
        await engine.aclose()


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"measuring {what} ...", file=sys.stderr)


def to_json(name: str, plan: Plan, info: EngineInfo, rates: list[Rate], copy_bandwidth: float) -> dict[str, Any]:
    """Bytes and seconds; `bandwidth_share` is what decode read, of what the memory can deliver."""
    datasheet = sum(gpu.bandwidth for gpu in plan.gpus)
    limit = datasheet if plan.shares else copy_bandwidth
    return {
        "model": name,
        "device": info.device,
        "load_seconds": round(info.load_seconds, 3),
        "load_bytes_per_second": round(info.model_bytes / info.load_seconds),
        "copy_bandwidth": round(copy_bandwidth),
        "bandwidth": round(limit) or None,
        "bandwidth_source": "datasheet" if plan.shares else "measured copy",
        "kv": plan.kv_type,
        "rates": [
            {
                "depth": rate.depth,
                "streams": rate.num_streams,
                "prefill_tokens_per_second": round(rate.prefill, 2),
                "decode_tokens_per_second": round(rate.decode, 2),
                "bandwidth_share": _share(plan, rate, limit),
            }
            for rate in rates
        ],
    }


def _share(plan: Plan, rate: Rate, limit: float) -> float | None:
    """A step reads the weights once for all streams, and each stream's own cells."""
    if limit <= 0:
        return None
    kv = plan.kv_bytes * rate.depth / plan.n_ctx
    step_bytes = plan.decode_weight_bytes + kv * rate.num_streams
    return round(rate.decode / rate.num_streams * step_bytes / limit, 3)


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    gib = report["load_bytes_per_second"] / GIB
    console.print(f"{report['model']} on {report['device']}, KV {report['kv']}", markup=False)
    console.print(f"loaded in {report['load_seconds']:.2f} s ({gib:.2f} GiB/s), warm-up included")
    if report["bandwidth"]:
        console.print(f"memory: {report['bandwidth'] / 1e9:.1f} GB/s ({report['bandwidth_source']})")
    console.print()
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("depth", "streams", "prefill tok/s", "decode tok/s", "of the memory's rate"):
        table.add_column(title, justify="right")
    for rate in report["rates"]:
        share = rate["bandwidth_share"]
        table.add_row(
            f"{rate['depth']:,}",
            str(rate["streams"]),
            f"{rate['prefill_tokens_per_second']:.4g}",
            f"{rate['decode_tokens_per_second']:.4g}",
            "?" if share is None else f"{share:.0%}",
        )
    console.print(table)
