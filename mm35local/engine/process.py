"""The worker process as its parent holds it: spawned, talked to over a pipe, reaped.

Invariant: `on_exit` is called exactly once, after the last `on_events`, both in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mm35local.engine.api import Command, EngineConfig, WorkerEvent
from mm35local.engine.log_tail import death_reason, log_size
from mm35local.engine.threads import sleep_at_barriers

SECONDS_TO_EXIT = 5.0
"""A worker whose pipe is closed has this long before it is killed."""


class WorkerProcess:
    """One life of the worker. Construct it off the event loop: spawning takes some 20 ms."""

    def __init__(
        self,
        config: EngineConfig,
        loop: asyncio.AbstractEventLoop,
        on_events: Callable[[list[WorkerEvent]], None],
        on_exit: Callable[[int | None, str], None],
    ) -> None:
        """`on_exit` gets the exit code and the reason, "" if unknown. Raises OSError if no process can be made."""
        self._config = config
        self._loop = loop
        self._on_events = on_events
        self._on_exit = on_exit
        self._log_offset = log_size(config.log_path)
        self._connection, self._process = _spawn(config)
        self.pid = self._process.pid
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="engine-commands", daemon=True).start()
        self._thread = threading.Thread(target=self._read, name="engine-events", daemon=True)
        self._thread.start()

    def send(self, command: Command) -> None:
        """Never fails or waits: a worker that reads nothing must not stop us, and a dead one's requests are ended by
        `on_exit`."""
        self._commands.put(command)

    def kill(self) -> None:
        """For a worker that does not heed Shutdown."""
        with contextlib.suppress(ValueError):  # it has been reaped
            self._process.kill()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (command := self._commands.get()) is not None:
                self._connection.send(command)

    def _read(self) -> None:
        while True:
            try:
                events: list[WorkerEvent] = self._connection.recv()
            except (EOFError, OSError):
                break
            if not self._call(self._on_events, events):
                break
        self._reap()

    def _reap(self) -> None:
        self._process.join(SECONDS_TO_EXIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._commands.put(None)
        exit_code = self._process.exitcode
        self._process.close()
        self._call(self._on_exit, exit_code, death_reason(self._config.log_path, self._log_offset, exit_code))

    def _call(self, callback: Callable[..., None], *arguments: object) -> bool:
        """In the loop's thread; False when the loop is closed and nobody listens any more."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True


def _spawn(config: EngineConfig) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=_run, args=(config, theirs), name="mm35-engine", daemon=True)
    try:
        process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, process


def _run(config: EngineConfig, connection: Connection) -> None:
    """The worker is imported here and not above: the parent must never load llama.cpp."""
    sleep_at_barriers(config.num_threads)
    from mm35local.engine.worker import run

    run(config, connection)
