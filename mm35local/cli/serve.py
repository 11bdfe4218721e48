"""`mm35 serve`: one loaded model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm35local.cli.keys import api_keys
from mm35local.cli.options import (
    AllowPrivateImages,
    ApiKeys,
    Ctx,
    Draft,
    FlashAttention,
    Kv,
    KvStoreSize,
    Mmproj,
    Model,
    ModelArgument,
    Parallel,
    Rpc,
    Speculate,
    SplitMode,
    Threads,
    UseGpu,
    one_model,
    settings_of,
)
from mm35local.errors import GIB, UsageError
from mm35local.loopback import is_loopback

if TYPE_CHECKING:
    from mm35local.cli.prepare import Prepared
    from mm35local.engine.api import EngineConfig
    from mm35local.server.model import ServedModel
    from mm35local.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    named: ModelArgument = None,
    model: Model = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Default 8080.")] = None,
    api_key: ApiKeys = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys, one a line.", show_default=False)
    ] = None,
    cors: Annotated[
        str | None, typer.Option(metavar="ORIGINS", help="Web pages that may use the server; * is all.")
    ] = None,
    own_sampling: Annotated[
        bool | None,
        typer.Option("--own-sampling", help="At high effort, keep the model's temperature whatever clients send."),
    ] = None,
    mmproj: Mmproj = None,
    allow_private_images: AllowPrivateImages = None,
    ctx: Ctx = None,
    parallel: Parallel = None,
    threads: Threads = None,
    kv: Kv = None,
    kv_store_size: KvStoreSize = None,
    split: SplitMode = None,
    speculate: Speculate = None,
    draft: Draft = None,
    flash_attention: FlashAttention = None,
    gpu: UseGpu = None,
    rpc: Rpc = None,
    quiet: Annotated[
        bool | None, typer.Option("--quiet", "-q", help="No line for each answer and each refused request.")
    ] = None,
    exit_with_stdin: Annotated[bool, typer.Option("--exit-with-stdin", hidden=True)] = False,
) -> None:
    """Serve a model to editors and agents: http://127.0.0.1:8080/v1."""
    wish = settings_of(context, model=one_model(named, model))
    if exit_with_stdin:
        _end_with_stdin()
    _run(wish)


def _run(wish: Settings) -> None:
    from mm35local.cli.prepare import prepare
    from mm35local.cli.serving import log_requests, run_server
    from mm35local.engine.client import EngineClient
    from mm35local.server.app import create_app
    from mm35local.server.fetch import Fetcher
    from mm35local.server.listen import open_socket
    from mm35local.server.security import LOOPBACK_HOSTS

    if not is_loopback(wish.host) and not api_keys(wish):
        raise UsageError(f"--host {wish.host} can be reached by others", "set a key: MM35_API_KEY=... mm35 serve")
    listener = open_socket(wish.host, wish.port)  # a taken port is said before anything is fetched or loaded
    try:
        prepared = prepare(wish)
        _introduce(prepared, wish)
        engine = EngineClient(engine_config(prepared, wish, prepares_grammars=True))
        origins = [origin for origin in map(str.strip, wish.cors.split(",")) if origin]
        hosts = LOOPBACK_HOSTS if is_loopback(wish.host) else None
        app = create_app(
            engine,
            _served_model(prepared, wish),
            api_keys=api_keys(wish),
            origins=origins,
            hosts=hosts,
            fetcher=Fetcher(wish.allow_private_images),
        )
        log_requests(is_quiet=wish.quiet)
        run_server(app, engine, listener, prepared.header.file_bytes)
    finally:
        listener.close()


def _introduce(prepared: Prepared, wish: Settings) -> None:
    from mm35local import paths

    choice, plan = prepared.choice, prepared.plan
    if choice.reason:
        print(choice.reason, file=sys.stderr)
    for fault in prepared.faults:
        print(f"WARNING: {choice.path.name}: {fault}", file=sys.stderr)
    if prepared.projector:
        print(f"sees images: {prepared.projector.path.name}", file=sys.stderr)
    place = "GPU memory" if plan.n_gpu_layers else "RAM"
    print(
        f"{choice.path.name}: context {plan.n_ctx:,} ({plan.kv_type}), {plan.needed_bytes / GIB:.1f} GiB of {place}, "
        f"up to {wish.parallel} answers at once; log: {paths.log_dir() / 'engine.log'}",
        file=sys.stderr,
    )


def engine_config(prepared: Prepared, wish: Settings, *, prepares_grammars: bool = False) -> EngineConfig:
    """What the worker is to load, with the smaller plans behind it."""
    from mm35local import paths
    from mm35local.cli.prepare import endpoints, wish_of
    from mm35local.engine.api import EngineConfig
    from mm35local.models.configure import configure
    from mm35local.models.plan import smaller_plans
    from mm35local.types import ImageGrid

    plan, machine, projector = prepared.plan, prepared.machine, prepared.projector
    asked = EngineConfig(
        model_path=prepared.choice.path,
        log_path=paths.log_dir() / "engine.log",
        n_ctx=plan.n_ctx,
        num_slots=wish.parallel,
        num_threads=wish.threads,
        speculate=wish.speculate,
        draft_path=wish.draft,
        rpc=endpoints(wish),
        mmproj_path=projector.path if projector else None,
        image_grid=projector.grid if projector else ImageGrid(),
        kv_store_dir=paths.kv_store_dir(),
        kv_store_bytes=round(wish.kv_store_size * GIB),
        overrides=tuple((fault.key, fault.right) for fault in prepared.faults),
        prepares_grammars=prepares_grammars,
    )
    return configure(asked, plan, machine, smaller_plans(plan.geometry, machine, wish_of(wish, projector), plan))


def _served_model(prepared: Prepared, wish: Settings) -> ServedModel:
    from mm35local.chat.messages import Effort
    from mm35local.server.model import ServedModel
    from mm35local.types import SamplingParams

    choice, header = prepared.choice, prepared.header
    defaults = choice.entry.sampling if choice.entry else {}
    return ServedModel(
        id=choice.model_id,
        metadata=header.metadata,
        size_bytes=header.file_bytes,
        n_ctx_train=header.number("context_length"),
        sampling={
            Effort(effort): SamplingParams(temperature=each.temperature, top_p=each.top_p)
            for effort, each in defaults.items()
        },
        license=choice.entry.licence if choice.entry else str(header.metadata.get("general.license", "")) or None,
        reason=choice.reason,
        image_grid=prepared.projector.grid if prepared.projector else None,
        thinking_field=wish.thinking_field,
        keeps_own_sampling=wish.own_sampling,
    )


def _end_with_stdin() -> None:
    """Whoever started us holds our standard input: its end, however sudden, is ours too."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
