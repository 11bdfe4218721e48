"""How each server of a comparison is started: the same model, threads, context and number of slots."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_START_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contenders share."""

    model: Path
    threads: int
    n_ctx: int = 8192
    num_slots: int = 16


@dataclass(frozen=True, slots=True)
class Contender:
    """A server's name and its command line; `{port}` is filled in at each start."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Start it on a free loopback port, wait until it is ready, and end it. Yields its address."""
        port = _free_port()
        command = [part.format(port=port) for part in self.command]
        with (
            tempfile.TemporaryFile() as log,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.environment}
            ) as process,
        ):
            try:
                _wait_until_ready(process, f"http://127.0.0.1:{port}", self.name)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


def mm35(setting: Setting, cache: Path, *options: str, name: str = "mm35local") -> Contender:
    """Ours; `cache` keeps its saved prefixes apart from the user's."""
    command = (
        *(sys.executable, "-m", "mm35local", "serve", "--model", str(setting.model), "--port", "{port}"),
        *("--threads", str(setting.threads), "--ctx", str(setting.n_ctx), "--parallel", str(setting.num_slots)),
        *options,
    )
    return Contender(name, command, {"XDG_CACHE_HOME": str(cache)})


def llama_server(setting: Setting, program: str, *options: str) -> Contender:
    """llama.cpp's own server, with unified cells; as its slots do not share them, it gets eight times as many."""
    command = (
        *(program, "--model", str(setting.model), "--port", "{port}", "--host", "127.0.0.1"),
        *("--threads", str(setting.threads), "--threads-batch", str(setting.threads)),
        *("--ctx-size", str(8 * setting.n_ctx), "--parallel", str(setting.num_slots), "--kv-unified"),
        *options,
    )
    beside = Path(program).resolve().parent
    has_libraries = any(beside.glob("libllama*"))
    return Contender("llama-server", command, {"LD_LIBRARY_PATH": str(beside)} if has_libraries else {})


def llama_cpp_server(setting: Setting, python: str) -> Contender:
    """llama-cpp-python's own server (its extra `server` must be installed in that Python)."""
    command = (
        *(python, "-m", "llama_cpp.server", "--model", str(setting.model), "--host", "127.0.0.1", "--port", "{port}"),
        *("--n_threads", str(setting.threads), "--n_threads_batch", str(setting.threads)),
        *("--n_ctx", str(setting.n_ctx)),
    )
    return Contender("llama_cpp.server", command)


def find_llama_server() -> str | None:
    """On the path; a build of one's own is named with --llama-server."""
    return shutil.which("llama-server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode} before it was ready")
        if _is_ready(url):
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{name} was not ready after {_START_SECONDS:.0f} s")


def _is_ready(url: str) -> bool:
    """A server without /health is ready when it lists its models."""
    try:
        status = httpx.get(f"{url}/health", timeout=5).status_code
        return (httpx.get(f"{url}/v1/models", timeout=5).status_code if status == 404 else status) == 200
    except httpx.TransportError:
        return False
