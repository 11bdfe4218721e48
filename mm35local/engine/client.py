"""The engine as front ends hold it: asyncio on this side, a worker process on the other.

Invariant: each request is in `_open` from its Submit to its one terminal event; whatever is in there when the worker
dies gets Failed(WorkerDied), and the worker is started again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from mm35local.engine.api import (
    Cancel,
    CellUse,
    Command,
    EngineConfig,
    EngineInfo,
    EngineState,
    EngineStatus,
    Failed,
    Finished,
    LoadError,
    Loading,
    Ready,
    RequestEvent,
    Shutdown,
    Submit,
    Tokenize,
    Tokenized,
    WorkerEvent,
)
from mm35local.engine.fallback import after_death, difference
from mm35local.engine.process import WorkerProcess
from mm35local.engine.restart import DeathRow, RestartPolicy
from mm35local.errors import EngineError, EngineGivenUp, EngineLoading, Mm35Error, WorkerDied
from mm35local.types import Prompt, SamplingParams

SECONDS_TO_SHUT_DOWN = 5.0
SECONDS_TO_SAVE = 30.0
"""And so many for KV states that are on their way to the disk."""


class EngineClient:
    """Implements `api.Engine`. All methods belong to the event loop that called `start`."""

    def __init__(self, config: EngineConfig, restart: RestartPolicy | None = None) -> None:
        self._asked = self._config = config
        self._deaths = DeathRow(restart or RestartPolicy())
        self._state = EngineState.LOADING
        self._progress = 0.0
        self._loading: Loading | None = None
        self._info: EngineInfo | None = None
        self._error: Mm35Error | None = None
        self._cells = CellUse()
        self._num_restarts = 0
        self._ready_since: float | None = None
        self._worker: WorkerProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Queue[RequestEvent]] = {}
        self._tokenizing: dict[int, asyncio.Future[list[int]]] = {}

    @property
    def status(self) -> EngineStatus:
        return EngineStatus(
            self._state,
            self._progress,
            self._info,
            self._error,
            len(self._open),
            self._num_restarts,
            self._loading if self._state is EngineState.LOADING else None,
            self._cells,
        )

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id, for diagnosis; None while there is none."""
        return self._worker.pid if self._worker else None

    async def start(self) -> None:
        """Start loading and return at once; `status` tells how it goes. Call it once."""
        assert self._supervisor is None, "start() is called once"
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")

    async def aclose(self) -> None:
        """End every request (CANCELLED) and the worker; safe to call twice.

        One that is cancelled kills the worker, which may be saving KV states.
        """
        self._closing.set()
        self._send(Shutdown())
        if self._supervisor is None:
            self._give_up(EngineError("the engine is closed"))
            return
        seconds = SECONDS_TO_SHUT_DOWN + (SECONDS_TO_SAVE if self._config.kv_store_bytes else 0)
        try:
            await asyncio.wait({self._supervisor}, timeout=seconds)
        finally:
            if self._worker and not self._supervisor.done():
                self._worker.kill()
        await asyncio.wait({self._supervisor})

    async def generate(
        self, prompt: Prompt, params: SamplingParams, client: str = ""
    ) -> AsyncGenerator[RequestEvent, None]:
        """The events of one request, the last one terminal; see `api.Engine.generate`."""
        request_id = next(self._ids)
        refusal = self._refusal()
        if refusal is not None:
            yield Failed(request_id, refusal)
            return
        events = self._open[request_id] = asyncio.Queue()
        self._send(Submit(request_id, prompt, params, client))
        try:
            while True:
                event = await events.get()
                yield event
                if isinstance(event, Finished | Failed):
                    return
        finally:
            if request_id in self._open:
                self._send(Cancel(request_id))

    async def tokenize(self, parts: Sequence[str | int]) -> list[int]:
        """Ids by the vocabulary in the GGUF; text is plain text.

        Raises EngineLoading, WorkerDied, or the error of a FAILED engine.
        """
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        call_id = next(self._ids)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._tokenizing[call_id] = answer
        self._send(Tokenize(call_id, tuple(parts)))
        try:
            return await answer
        finally:
            self._tokenizing.pop(call_id, None)

    def _refusal(self) -> Mm35Error | None:
        """Why nothing can be asked of the engine now."""
        if self._state is EngineState.FAILED:
            return self._error
        if self._closing.is_set():
            return EngineError("the engine is closing")
        return EngineLoading(self._progress) if self._state is EngineState.LOADING else None

    def _send(self, command: Command) -> None:
        if self._worker:
            self._worker.send(command)

    # --- the life of the worker ---

    async def _supervise(self) -> None:
        while self._is_wanted():
            try:
                exit_code, reason = await self._run_worker()
            except OSError as error:
                self._give_up(EngineError(f"the engine's process cannot be started: {error}"))
                return
            died = WorkerDied(exit_code, reason)
            self._end_all(died)
            smaller = after_death(self._config, died) if self._ready_since is None else None
            if smaller is not None:
                self._config = smaller
            elif self._is_wanted():
                await self._back_off(died)
        self._give_up(self._error or EngineError("the engine is closed"))

    def _is_wanted(self) -> bool:
        """Should there be a worker?"""
        return not self._closing.is_set() and self._state is not EngineState.FAILED

    async def _run_worker(self) -> tuple[int | None, str]:
        """One life of the worker: from its start to its exit code and reason."""
        self._worker = await WorkerProcess.start(self._config, self._on_events)
        if self._closing.is_set():
            self._send(Shutdown())
        try:
            return await self._worker.end()
        finally:
            self._worker = None

    async def _back_off(self, died: WorkerDied) -> None:
        ready_seconds = 0.0 if self._ready_since is None else time.monotonic() - self._ready_since
        self._ready_since = None
        delay = self._deaths.next_delay(ready_seconds)
        if delay is None:
            self._give_up(EngineGivenUp(died.exit_code, died.detail, self._deaths.num_deaths))
            return
        self._num_restarts += 1
        try:
            await asyncio.wait_for(self._closing.wait(), delay)
        except TimeoutError:
            return

    def _give_up(self, error: Mm35Error) -> None:
        self._state, self._error = EngineState.FAILED, error
        self._end_all(error)

    def _end_all(self, error: Mm35Error) -> None:
        """No worker: whatever waits for one gets `error`."""
        if self._state is not EngineState.FAILED:
            self._state, self._progress, self._info = EngineState.LOADING, 0.0, None
            self._loading = None
        self._cells = CellUse()
        for request_id, events in self._open.items():
            events.put_nowait(Failed(request_id, error))
        self._open.clear()
        for answer in self._tokenizing.values():
            if not answer.done():
                answer.set_exception(error)
        self._tokenizing.clear()

    # --- what the worker says ---

    def _on_events(self, events: Sequence[WorkerEvent]) -> None:
        for event in events:
            match event:
                case Loading(progress):
                    self._progress, self._loading = progress, event
                case Ready(info):
                    if self._config is not self._asked and info.changed is None:
                        info = replace(info, changed=difference(self._asked, self._config))
                    self._state, self._progress, self._info = EngineState.READY, 1.0, info
                    self._ready_since = time.monotonic()
                    if self._worker:
                        self._worker.read_log_from_here()
                case CellUse():
                    self._cells = event
                case LoadError(error):
                    self._state, self._error = EngineState.FAILED, error
                case Tokenized(call_id, token_ids):
                    answer = self._tokenizing.get(call_id)
                    if answer is not None and not answer.done():
                        answer.set_result(list(token_ids))
                case _:
                    self._deliver(event)

    def _deliver(self, event: RequestEvent) -> None:
        is_last = isinstance(event, Finished | Failed)
        events = self._open.pop(event.request_id, None) if is_last else self._open.get(event.request_id)
        if events is not None:
            events.put_nowait(event)
