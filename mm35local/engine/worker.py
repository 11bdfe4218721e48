"""The engine's process: it owns llama.cpp, because a ggml abort takes its whole process down.

One loop: sleep on the inbox while there is nothing to do, answer what has come, compute one step, send one list of
events for it. It ends on Shutdown, when the model cannot be loaded, and when its parent is gone.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from mm35local.engine.api import (
    Cancel,
    Command,
    EngineConfig,
    EngineInfo,
    Failed,
    Finished,
    LoadError,
    Ready,
    Shutdown,
    Started,
    Submit,
    Tokenize,
    Tokenized,
    WorkerEvent,
)
from mm35local.engine.core import EngineCore
from mm35local.engine.draft_model import DraftModel
from mm35local.engine.fallback import difference
from mm35local.engine.inbox import Inbox
from mm35local.engine.kv_file import fingerprint
from mm35local.engine.kv_store import KvStore
from mm35local.engine.llama_backend import LlamaBackend
from mm35local.engine.load_rate import LoadRate, file_bytes
from mm35local.engine.measured import compare
from mm35local.engine.outbox import HOLD_SECONDS, Outbox
from mm35local.engine.paying import PayingDrafter
from mm35local.engine.pipe import Pipe
from mm35local.engine.speculation import Drafter, NgramDrafter, Speculator
from mm35local.engine.threads import LONG_SLICE, ask_for_slices, make_way
from mm35local.engine.tokenizing import Tokenizing
from mm35local.engine.warm_up import warm_up
from mm35local.errors import LoadFailed, Mm35Error, RpcError
from mm35local.native.buffers import BufferLog
from mm35local.native.library import Library, version

SECONDS_BETWEEN_PROGRESS = 0.1
SECONDS_BETWEEN_REPORTS = 1.0
MOST_RAM_BYTES = 1 << 30
"""Of saved KV states, beside those that wait for the disk."""


def run(config: EngineConfig, pipe: Pipe) -> None:
    """The target of the process. What ends a whole group of processes, Ctrl-C in a terminal or a service that is
    stopped, is for the parent: it lets answers end, and sends Shutdown."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _redirect_output(config.log_path)
    inbox = Inbox(pipe)
    ask_for_slices(LONG_SLICE)  # not for the inbox's thread
    started = time.monotonic()
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the plan counts cards as the driver does
    buffers = BufferLog()
    library = Library(lambda line: print(buffers.read(line), file=sys.stderr))
    print(version(), file=sys.stderr)
    asked = config
    try:
        config, backend = _load_largest(library, asked, buffers, inbox, pipe)
        info = _info(asked, config, backend, buffers, time.monotonic() - started)
        draft_model = _open_draft_model(library, config, backend)
    except RpcError:
        raise  # the process ends and starts again, later each time: the worker over there may come back
    except Mm35Error as error:
        pipe.send([LoadError(error)])
        return
    for measured in compare(info.planned, info.buffers):
        print(measured, file=sys.stderr)
    pipe.send([Ready(info)])
    store = _open_store(config)
    core = EngineCore(
        backend,
        n_ctx=config.n_ctx,
        num_slots=config.num_slots,
        n_batch=config.n_batch,
        max_waiting=config.max_waiting,
        speculator=Speculator(_drafters(config, draft_model)),
        store=store,
    )
    tokenizing = Tokenizing(backend.tokenize, inbox.put)
    gc.freeze()  # to look for garbage among all that was loaded takes some 10 ms
    _serve(core, tokenizing, inbox, Outbox(pipe.send, make_way=make_way, is_text=backend.is_text))
    core.save_cache()
    if store is not None:
        store.close()
    if not tokenizing.stop():
        os._exit(0)  # it reads what would be freed now
    if draft_model is not None:
        draft_model.shutdown()
    backend.shutdown()


def _open_draft_model(library: Library, config: EngineConfig, backend: LlamaBackend) -> DraftModel | None:
    if config.draft_path is None or config.speculate != "auto":
        return None
    return DraftModel(
        library,
        config.draft_path,
        backend.model,
        n_ctx=config.n_ctx,
        num_slots=config.num_slots,
        n_batch=config.n_batch,
        gpu=config.beside_gpu,
        flash_attention=config.flash_attention,
    )


def _drafters(config: EngineConfig, draft_model: DraftModel | None) -> list[Drafter]:
    """In the order in which they are asked: a guess by lookup costs nothing."""
    if config.speculate == "off":
        return []
    if draft_model is None:
        return [NgramDrafter()]
    return [NgramDrafter(beside_changes=False), PayingDrafter(draft_model)]


def _open_store(config: EngineConfig) -> KvStore | None:
    """Without a folder to write to the engine runs all the same."""
    if config.kv_store_dir is None or not config.kv_store_bytes:
        return None
    sight = config.mmproj_path and (config.mmproj_path.name, config.mmproj_path.stat().st_size)
    mark = fingerprint(config.model_path, version(), config.kv_type, config.flash_attention, config.overrides, sight)
    try:
        return KvStore(
            config.kv_store_dir,
            mark,
            disk_bytes=config.kv_store_bytes,
            ram_bytes=min(config.kv_store_bytes, MOST_RAM_BYTES),
        )
    except OSError as error:
        print(f"KV states are not kept: {error}", file=sys.stderr)
        return None


def _serve(core: EngineCore, tokenizing: Tokenizing, inbox: Inbox, outbox: Outbox) -> None:
    is_open, report = True, _CellReport(core)
    while is_open:
        if not core.has_work and inbox.is_empty:
            _check_books(core)
            core.copy_ahead()
        commands = inbox.drain(block=not core.has_work)
        is_open = not any(isinstance(command, Shutdown) for command in commands)
        if commands:
            outbox.flush()
            events = [*_handle(commands, core, tokenizing), *core.take_events()]
            outbox.put(report.added_to(events), may_hold=core.first_step_seconds <= HOLD_SECONDS)
        if core.has_work:
            outbox.put(report.added_to(core.step()), may_hold=core.is_steady)


class _CellReport:
    """How the cells are used is told when requests start and end, and once a second: most steps tell tokens only."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._due_at = 0.0

    def added_to(self, events: Sequence[WorkerEvent]) -> list[WorkerEvent]:
        has_changed = any(isinstance(event, Started | Finished | Failed) for event in events)
        now = time.monotonic()
        if not has_changed and now < self._due_at:
            return list(events)
        self._due_at = now + SECONDS_BETWEEN_REPORTS
        return [*events, self._core.cell_use]


def _check_books(core: EngineCore) -> None:
    """Before sleeping. A fault here is ours; it must cost the cache and not an answer."""
    fault = core.fault()
    if fault is not None:
        print(f"the books of the KV cells are wrong, the cache is cleared: {fault}", file=sys.stderr)
        core.clear_cache()


def _handle(commands: Sequence[Command | Tokenized], core: EngineCore, tokenizing: Tokenizing) -> list[WorkerEvent]:
    events: list[WorkerEvent] = []
    for command in commands:
        match command:
            case Submit():
                core.submit(command)
            case Cancel():
                core.cancel(command)
            case Tokenize():
                tokenizing.ask(command)
            case Tokenized():
                events.append(command)
            case Shutdown():
                core.cancel_all()
    return events


def _load_largest(
    library: Library, asked: EngineConfig, buffers: BufferLog, inbox: Inbox, pipe: Pipe
) -> tuple[EngineConfig, LlamaBackend]:
    """The configuration asked for, or the first of its fallbacks that memory allows."""
    configs = [asked, *asked.fallbacks]
    for config, following in pairwise(configs):
        try:
            return config, _load(library, config, inbox, pipe)
        except LoadFailed as error:
            if not error.is_memory_short:
                raise
            print(f"{error}; trying with {difference(asked, following)}", file=sys.stderr)
            buffers.forget()
    return configs[-1], _load(library, configs[-1], inbox, pipe)


def _load(library: Library, config: EngineConfig, inbox: Inbox, pipe: Pipe) -> LlamaBackend:
    report = _progress_reporter(pipe, file_bytes(config.model_path))

    def on_progress(progress: float) -> bool:
        report(progress)
        return not inbox.is_closing

    backend = LlamaBackend(library, config, on_progress=on_progress, is_cancelled=inbox.is_cancelled)
    warm_up(backend, n_ctx=config.n_ctx, n_batch=config.n_batch, is_on_gpu=config.n_gpu_layers > 0)
    backend.settle()
    return backend


def _progress_reporter(pipe: Pipe, total_bytes: int) -> Callable[[float], None]:
    """Sends at most ten Loading events a second."""
    next_time = 0.0
    rate = LoadRate(total_bytes)

    def report(progress: float) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + SECONDS_BETWEEN_PROGRESS
            pipe.send([rate.at(progress, time.monotonic())])

    return report


def _info(
    asked: EngineConfig, config: EngineConfig, backend: LlamaBackend, buffers: BufferLog, load_seconds: float
) -> EngineInfo:
    return EngineInfo(
        n_ctx=config.n_ctx,
        n_ctx_train=backend.model.n_ctx_train,
        n_vocab=backend.model.n_vocab,
        num_slots=config.num_slots,
        model_bytes=backend.model.num_bytes,
        load_seconds=load_seconds,
        device=", ".join(backend.model.device_names()),
        buffers=buffers.entries,
        changed=None if config is asked else difference(asked, config),
        planned=config.planned,
    )


def _redirect_output(log_path: Path) -> None:
    """stdout and stderr, also of native code, go to the end of the log; a crash leaves its stack there."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable()
