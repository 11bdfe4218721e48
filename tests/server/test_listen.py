from __future__ import annotations

import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from mm35local.errors import PortInUse, ServerError
from mm35local.server.listen import open_socket
from tests.server.conftest import port_of

SERVE = """
import asyncio
from mm35local.server.app import create_app
from mm35local.server.listen import open_socket, quiet_server
from tests.server.conftest import fake_engine, served_model
listener = open_socket("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
async def main():
    await quiet_server(create_app(fake_engine(), served_model())).serve([listener])
asyncio.run(main())
print("bye", flush=True)
"""


def test_a_port_in_use_is_said_before_anything_else() -> None:
    first = open_socket("127.0.0.1", 0)
    with first, pytest.raises(PortInUse, match=f"port {port_of(first)} on 127.0.0.1"):
        open_socket("127.0.0.1", port_of(first))


def test_a_port_is_free_again_right_after_its_server_ended() -> None:
    with open_socket("127.0.0.1", 0) as first:
        port = port_of(first)
    open_socket("127.0.0.1", port).close()


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ServerError, match=r"cannot listen on 192\.0\.2\.1:0"):
        open_socket("192.0.2.1", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order_and_quietly(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=20).json()["server"] == "mm35local"
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("bye\n", "", 0)


def test_an_idle_server_costs_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        httpx.get(f"http://127.0.0.1:{port}/health", timeout=20)
        time.sleep(0.5)
        watched = psutil.Process(process.pid)
        before = watched.num_ctx_switches().voluntary
        time.sleep(1.0)
        num_wakeups = watched.num_ctx_switches().voluntary - before
        process.terminate()
    assert num_wakeups <= 3


def test_the_server_loads_no_model_library() -> None:
    code = (
        "import sys, mm35local.server.app, mm35local.server.listen;"
        "print({'llama_cpp', 'torch', 'mistral_common', 'jinja2'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
