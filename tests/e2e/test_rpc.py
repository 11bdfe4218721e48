"""A model split over two processes that lend their devices, as two machines would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import openai
import pytest

from mm35local import paths
from mm35local.engine.cpu_kernels import extra_buffers_work
from mm35local.models.remote import probe
from tests.e2e.serving import Server, free_port, mm35, serving

QUESTIONS = ("Name three colours.", "What is the capital of France?")


@contextmanager
def lending(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mm35local", "rpc-worker", "--port", str(port), "--threads", "1"]
    with log.open("ab") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            deadline = time.monotonic() + 30
            while b"transport" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(20)


def leave_weights_as_they_are() -> None:
    """What is lent has no kernels for repacked weights, and those (AMX) round otherwise."""
    verdicts = paths.cpu_kernels_file()
    extra_buffers_work(verdicts)
    if verdicts.exists():
        verdicts.write_text(json.dumps(dict.fromkeys(json.loads(verdicts.read_text()), False)))


def test_split_over_two_workers_and_a_worker_killed(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM35_CTX", "256")
    monkeypatch.setenv("MM35_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    leave_weights_as_they_are()
    model = ("--model", str(smollm2_path))
    with serving(*model, log=tmp_path / "whole.log") as whole:
        expected = [whole.ask(question, 16).text for question in QUESTIONS]
    ports = (free_port(), free_port())
    rpc = [word for port in ports for word in ("--rpc", f"127.0.0.1:{port}")]
    log = tmp_path / "split.log"
    with lending(ports[0], tmp_path / "first.log"), ExitStack() as second:
        process = second.enter_context(lending(ports[1], tmp_path / "second.log"))
        with serving(*model, *rpc, log=log) as server:
            assert [server.ask(question, 16).text for question in QUESTIONS] == expected
            _kill_in_mid_answer(server, process)
            assert server.wait_until("loading")["restarts"] >= 1
            with lending(ports[1], tmp_path / "second.log"):
                server.wait_until("ok")
                assert server.ask(QUESTIONS[0], 16).text == expected[0]


def _kill_in_mid_answer(server: Server, worker: subprocess.Popen[bytes]) -> None:
    messages = [{"role": "user", "content": "Tell me a long story."}]
    with pytest.raises(openai.APIError, match=r"RPC server crashed"):
        for index, _chunk in enumerate(
            server.client.chat.completions.create(model="any", messages=messages, max_tokens=200, stream=True)  # type: ignore[arg-type]
        ):
            if index == 3:
                worker.kill()
                worker.wait(20)


def test_a_missing_worker_is_two_lines(smollm2_path: Path) -> None:
    done = mm35("serve", "--model", str(smollm2_path), "--port", str(free_port()), "--rpc", "127.0.0.1:1")
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "error: the RPC worker 127.0.0.1:1 does not answer: Connection refused",
            "hint: start it there: mm35 rpc-worker; or leave --rpc out",
        ],
    )


def test_another_address_is_warned_of_and_a_taken_port_refused(tmp_path: Path) -> None:
    port = free_port()
    with lending(port, tmp_path / "worker.log"):
        (lent,) = probe(f"127.0.0.1:{port}")
        assert lent.free_bytes > 0
        done = mm35("rpc-worker", "--port", str(port))
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            1,
            f"error: port {port} on 127.0.0.1 is taken by another program",
        )
    assert "NO authentication" not in (tmp_path / "worker.log").read_text()
    command = [sys.executable, "-m", "mm35local", "rpc-worker", "--host", "0.0.0.0", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert "WARNING: 0.0.0.0 can be reached by others" in process.stderr.readline()
        process.terminate()
