"""`mm35 rpc-worker`: this machine's devices lent to an engine elsewhere, by a child that may crash and comes back.

A client that sends nonsense, or goes away in mid-graph, can take the lending process down; the port comes back.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from mm35local.engine.restart import DeathRow, RestartPolicy
from mm35local.engine.threads import default_threads, sleep_at_barriers
from mm35local.errors import RpcError


def lend(host: str, port: int, num_threads: int) -> None:
    """Until interrupted. `num_threads` 0 takes as many as the engine would. Raises RpcError after too many crashes."""
    endpoint, deaths = f"{host}:{port}", DeathRow(RestartPolicy())
    while True:
        started = time.monotonic()
        exit_code = _one_life(endpoint, num_threads)
        delay = deaths.next_delay(time.monotonic() - started)
        if delay is None:
            raise RpcError(endpoint, f"ended again and again, last with code {exit_code}", "see what it printed above")
        print(f"the lending process ended with code {exit_code}; again in {delay:.1f} s", file=sys.stderr)
        time.sleep(delay)


def _one_life(endpoint: str, num_threads: int) -> int | None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_lend, args=(endpoint, num_threads, theirs), name="mm35-rpc", daemon=True)
    process.start()
    theirs.close()
    try:
        process.join()
        return process.exitcode
    finally:
        ours.close()
        process.kill()
        process.join()


def _lend(endpoint: str, num_threads: int, connection: Connection) -> None:
    """The child: Ctrl-C is for the parent, whose end, however sudden, is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    sleep_at_barriers(num_threads)
    from mm35local.native.library import Library
    from mm35local.native.rpc import lend_devices

    library = Library(lambda line: print(line, file=sys.stderr))
    try:
        lend_devices(endpoint, num_threads or default_threads().num_batch)
    except RpcError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    finally:
        library.close()


def _end_with(connection: Connection) -> None:
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(0)
