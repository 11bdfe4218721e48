"""Many clients, random cancels and a killed engine: `python -m bench.soak --model FILE [--minutes 20] [--kills 3]`.

Every request must end: answered, cancelled by its client, or failed with an error that says why. The table counts how
each ended and what memory did; it exits with 1 when one is unaccounted for, or hung.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from bench.contenders import Setting, mm35
from bench.results_file import RESULTS, machine
from bench.streams import open_client, stream_chat
from bench.workloads import ask, words

_LONGEST_SECONDS = 180.0
"""A request that takes longer than this hangs: prompts are short and answers end after 64 tokens."""
_KV_STORE_GIB = "0.25"
"""Of states on disk, and at most of those in RAM: little enough to be full when memory is first looked at."""
_CALM_SHARE = 0.2
"""Of the time between two kills: its end, when everything that is kept is full again."""


@dataclass(slots=True)
class Tally:
    """What became of the requests, and the memory of the server and its engine, in bytes, once a second."""

    ends: Counter[str] = field(default_factory=Counter)
    num_asked: int = 0
    rss_bytes: list[int] = field(default_factory=list)
    server_bytes: list[int] = field(default_factory=list)
    """The server's part of `rss_bytes`."""
    num_kills: int = 0
    lives: list[int] = field(default_factory=lambda: [0])
    """How many samples there were when each life of the engine began."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as cache:
        setting = Setting(arguments.model, arguments.threads)
        contender = mm35(setting, Path(cache), "--kv-store-size", _KV_STORE_GIB)
        with contender.serving() as url:
            asyncio.run(_soak(url, tally, arguments.minutes * 60, arguments.clients, arguments.kills))
    sys.exit(0 if _report(tally, arguments) else 1)


async def _soak(url: str, tally: Tally, seconds: float, num_clients: int, num_kills: int) -> None:
    end = time.monotonic() + seconds
    async with open_client(url) as client:
        watching = asyncio.ensure_future(_watch(tally, end))
        killing = asyncio.ensure_future(_kill(tally, seconds, num_kills))
        await asyncio.gather(*(_client(client, tally, Random(number), end) for number in range(num_clients)))
        await killing
        await watching


async def _client(client: httpx.AsyncClient, tally: Tally, rng: Random, end: float) -> None:
    """One conversation after the other; some are broken off, as an impatient person does."""
    topics = [words(Random(f"topic {i}"), 60) for i in range(4)]
    while time.monotonic() < end:
        tally.num_asked += 1
        chat = ask(f"{rng.choice(topics)}\nGo on about {words(rng, rng.randint(1, 40))}.")
        patience = rng.uniform(0.05, 4.0) if rng.random() < 0.3 else _LONGEST_SECONDS
        tally.ends[await _ask(client, chat, rng.randint(1, 64), patience)] += 1


async def _ask(client: httpx.AsyncClient, chat: list[dict[str, str]], max_tokens: int, patience: float) -> str:
    try:
        await asyncio.wait_for(stream_chat(client, chat, max_tokens, ignore_eos=True), patience)
    except TimeoutError:
        return "hung" if patience == _LONGEST_SECONDS else "cancelled by the client"
    except ValueError as error:
        await asyncio.sleep(0.2)
        return "failed: " + _kind(str(error))
    except httpx.HTTPError as error:
        return f"connection lost: {type(error).__name__}"
    return "answered"


def _kind(message: str) -> str:
    """The error's code in an SSE error or a JSON body; the message where it has none."""
    for code in ("worker_died", "loading", "engine_overloaded", "overloaded"):
        if code in message:
            return code
    return message[:80]


async def _watch(tally: Tally, end: float) -> None:
    while time.monotonic() < end:
        server, *children = _processes()
        tally.server_bytes.append(server.memory_info().rss)
        tally.rss_bytes.append(tally.server_bytes[-1] + sum(child.memory_info().rss for child in children))
        await asyncio.sleep(1)


async def _kill(tally: Tally, seconds: float, num_kills: int) -> None:
    for _ in range(num_kills):
        await asyncio.sleep(seconds / (num_kills + 1))
        for process in _processes()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("libllama" in region.path for region in process.memory_maps()):
                    tally.lives.append(len(tally.rss_bytes))
                    os.kill(process.pid, signal.SIGKILL)
                    tally.num_kills += 1


def _processes() -> list[psutil.Process]:
    """The server, then its children."""
    (server,) = psutil.Process().children()
    return [server, *server.children(recursive=True)]


def _rss_of_first_and_last_life(tally: Tally) -> tuple[float, float]:
    """Means over the end of each, as long a stretch of both."""
    starts = [*tally.lives, len(tally.rss_bytes)]
    stretch = max(1, int(_CALM_SHARE * starts[1]))
    first, last = (tally.rss_bytes[:end][-stretch:] for end in (starts[1], starts[-1]))
    return sum(first) / len(first), sum(last) / len(last)


def _report(tally: Tally, arguments: argparse.Namespace) -> bool:
    """Print the table and write it down. Is every request accounted for?"""
    first, last = _rss_of_first_and_last_life(tally)
    rows = {
        "requests": tally.num_asked,
        **dict(sorted(tally.ends.items())),
        "kills of the engine": tally.num_kills,
        "RSS before the first kill, MiB": round(first / 2**20, 1),
        "RSS at the end, MiB": round(last / 2**20, 1),
        "growth, %": round(100 * (last / first - 1), 2),
    }
    table = Table(title=f"soak: {arguments.minutes:g} min, {arguments.clients} clients", box=None)
    table.add_column("what")
    table.add_column("count", justify="right")
    for what, count in rows.items():
        table.add_row(what, str(count))
    Console().print(table)
    document = {
        "minutes": arguments.minutes,
        "clients": arguments.clients,
        "machine": machine(),
        "rows": rows,
        "RSS by minute, MiB: all": _by_minute(tally.rss_bytes),
        "RSS by minute, MiB: the server": _by_minute(tally.server_bytes),
    }
    (RESULTS / "soak.json").write_text(json.dumps(document, indent=2) + "\n")
    return sum(tally.ends.values()) == tally.num_asked and not tally.ends["hung"]


def _by_minute(rss_bytes: list[int]) -> list[float]:
    return [round(num_bytes / 2**20, 1) for num_bytes in rss_bytes[::60]]


if __name__ == "__main__":
    main()
