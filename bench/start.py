"""From nothing to the first word: `python -m bench.start [--rounds N]`.

Each round starts a fresh `mm35 serve` on the embedded model, so the file system's cache is warm and nothing else is.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from bench.results_file import report

_MODEL = "smollm2-135m"
_POLL_SECONDS = 0.005
_QUESTION = {"messages": [{"role": "user", "content": "Name three colours."}], "stream": True, "max_tokens": 16}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    samples: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.parse_args().rounds):
        for what, seconds in _round():
            samples[what].append(seconds)
    report("start", "s", samples)


def _round() -> Iterator[tuple[str, float]]:
    yield "mm35 --help", _run("--help")
    start = time.perf_counter()
    with _server() as url:
        _wait_for(url, 503, 200)
        yield "mm35 serve: /health answers", time.perf_counter() - start
        _wait_for(url, 200)
        yield "mm35 serve: ready", time.perf_counter() - start
        asked = time.perf_counter()
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=_QUESTION, timeout=60) as reply:
            next(line for line in reply.iter_lines() if _has_text(line))
            yield "first chunk of an answer", time.perf_counter() - asked
    yield (
        "mm35 chat -p, server started and stopped",
        _run("chat", "-p", "Say hi", "--max-tokens", "4", "--model", _MODEL),
    )


def _has_text(line: str) -> bool:
    """Is it a chunk with a word in it? The first one only names the role."""
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return bool(choices and choices[0]["delta"].get("content"))


def _run(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mm35local", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


@contextmanager
def _server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mm35local", "serve", "--model", _MODEL, "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(url: str, *statuses: int) -> None:
    while True:
        try:
            if httpx.get(f"{url}/health").status_code in statuses:
                return
        except httpx.TransportError:
            pass
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()
