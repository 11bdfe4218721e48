"""The worker process as its parent holds it: spawned, talked to over a pair of sockets, reaped.

Invariant: nothing of the worker comes after `end` has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from mm35local.engine.api import Command, EngineConfig, WorkerEvent
from mm35local.engine.log_tail import death_reason, log_size
from mm35local.engine.pipe import Pipe, Unpacker, packed
from mm35local.engine.threads import sleep_at_barriers

SECONDS_TO_EXIT = 5.0
"""A worker whose pipe is closed has this long before it is killed."""

OnEvents = Callable[[Sequence[WorkerEvent]], None]


_READ_BYTES = 1 << 16
"""asyncio's own buffer is made anew for each read, and four times as large: the system maps and clears its pages."""


class WorkerProcess(asyncio.BufferedProtocol):
    """One life of the worker, from `start` to `end`. All methods belong to one event loop."""

    def __init__(self, process: SpawnProcess, on_events: OnEvents, log_path: Path, log_offset: int) -> None:
        """For `start`; the last words of the worker stand behind `log_offset`."""
        self.pid = process.pid
        self._process = process
        self._on_events = on_events
        self._log_path = log_path
        self._log_offset = log_offset
        self._incoming = Unpacker()
        self._read = memoryview(bytearray(_READ_BYTES))
        self._is_over = asyncio.Event()
        self._transport: asyncio.WriteTransport

    @classmethod
    async def start(cls, config: EngineConfig, on_events: OnEvents) -> WorkerProcess:
        """`on_events` gets what the worker tells. Raises OSError if no process can be made."""
        log_offset = log_size(config.log_path)
        ours, process = await asyncio.to_thread(_spawn, config)  # takes some 20 ms
        worker = cls(process, on_events, config.log_path, log_offset)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)
        return worker

    def send(self, command: Command) -> None:
        """Never fails or waits: a worker that reads nothing must not stop us, and a dead one's requests end with it."""
        if not self._transport.is_closing():
            self._transport.write(packed(command))

    def kill(self) -> None:
        """For a worker that does not heed Shutdown."""
        with contextlib.suppress(ValueError):  # it has been reaped
            self._process.kill()

    def read_log_from_here(self) -> None:
        """It has loaded: what was logged until now is not why it will end."""
        self._log_offset = log_size(self._log_path)

    async def end(self) -> tuple[int | None, str]:
        """Wait for it. Returns the exit code and the reason, "" if unknown."""
        try:
            await self._is_over.wait()
            return await asyncio.to_thread(self._reap)
        finally:
            self._transport.close()  # a worker whose parent has left goes, too

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        for events in self._incoming.feed(self._read[:nbytes]):
            self._on_events(events)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over.set()

    def _reap(self) -> tuple[int | None, str]:
        self._process.join(SECONDS_TO_EXIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        return exit_code, death_reason(self._log_path, self._log_offset, exit_code)


def _spawn(config: EngineConfig) -> tuple[socket.socket, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    process = context.Process(target=_run, args=(config, theirs), name="mm35-engine", daemon=True)
    try:
        process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, process


def _run(config: EngineConfig, end: socket.socket) -> None:
    """The worker is imported here and not above: the parent must never load llama.cpp."""
    sleep_at_barriers(config.num_threads)
    from mm35local.engine.worker import run

    run(config, Pipe(end))
