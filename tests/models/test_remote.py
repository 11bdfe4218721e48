"""Workers that are missing, strange, or of another version: errors with names, before llama.cpp could abort."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mm35local.errors import RpcError, UsageError
from mm35local.models import remote
from mm35local.models.gpus import Gpu, Link, Machine
from mm35local.models.plan import Wish, make_plan
from mm35local.models.remote import parse_endpoint, probe, with_remote
from mm35local.models.split import Split
from mm35local.models.stated import parse_gpus
from tests.models.test_plan_table import medium

GIB = 1 << 30


@contextmanager
def worker(*answers: bytes | None) -> Iterator[str]:
    """Takes one client and gives an answer per message; None: none. Hangs up after the last."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    _command, size = struct.unpack("<BQ", connection.recv(9, socket.MSG_WAITALL))
                    if size:
                        connection.recv(size, socket.MSG_WAITALL)
                    if answer is not None:
                        connection.sendall(struct.pack("<Q", len(answer)) + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def hello(major: int, minor: int) -> bytes:
    return bytes([major, minor, 3, 0]) + bytes(24)


def count(number: int) -> bytes:
    return struct.pack("<I", number)


def test_a_worker_with_two_devices() -> None:
    round_trips = [count(2)] * 5
    transfers = [None, count(2)] * 3
    buffer = [struct.pack("<QQ", 7, 4 << 20), struct.pack("<Q", 4096)]
    memory = [struct.pack("<QQ", 20 * GIB, 24 * GIB), struct.pack("<QQ", 70 * GIB, 80 * GIB)]
    with worker(hello(7, 0), count(2), *round_trips, *buffer, *transfers, None, *memory) as endpoint:
        small, large = probe(endpoint)
    assert [(gpu.name, gpu.free_bytes, gpu.total_bytes) for gpu in (small, large)] == [
        (f"{endpoint} #0", 20 * GIB, 24 * GIB),
        (f"{endpoint} #1", 70 * GIB, 80 * GIB),
    ]
    assert small.link is not None
    assert small.link.bandwidth > 0
    assert small.link == large.link


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([hello(6, 0)], r"speaks version 6\.0\.3 of the protocol, this one 7\.0"),
        ([hello(7, 9)], r"speaks version 7\.9\.3"),
        ([b"HTTP/1.1 400"], "answers 12 bytes where 28 belong"),
        ([], "hung up|does not answer"),
        ([hello(7, 0), count(0)], "says it has 0 devices, expected 1 to 16"),
        ([hello(7, 0), count(1_000_000)], "says it has 1000000 devices"),
    ],
)
def test_strange_workers(answers: list[bytes], problem: str) -> None:
    with worker(*answers) as endpoint, pytest.raises(RpcError, match=problem) as caught:
        probe(endpoint)
    assert endpoint in str(caught.value)


def test_nobody_there_and_nobody_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe_socket.getsockname()[1]}"
        with pytest.raises(RpcError, match="does not answer: Connection refused"):
            with_remote(Machine((), GIB), [endpoint])
        monkeypatch.setattr(remote, "_SECONDS", 0.05)
        probe_socket.listen()
        with pytest.raises(RpcError, match="serves another engine"):
            probe(endpoint)


@pytest.mark.parametrize("text", ["", "here", "here:", ":50052", "here:0", "here:65536", "::1:50052", "here:x"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_endpoint(text)


def test_remote_cards_are_planned_like_local_ones_in_whole_layers() -> None:
    (card,) = parse_gpus("48GiB")
    far = Gpu("far:50052", 48 * GIB, 40 * GIB, card.bandwidth, card.flops, link=Link(0.0005, 117e6))
    machine = Machine((card, far), 0)
    plan = make_plan(medium("Q4_K_M"), machine, Wish(n_ctx=8192))
    assert (plan.split, plan.n_gpu_layers) == (Split.LAYER, 89)
    assert plan.shares[1].num_bytes <= far.free_bytes
    near = make_plan(medium("Q4_K_M"), Machine((card, card), 0), Wish(n_ctx=8192, split=Split.LAYER))
    assert 1 / plan.decode - 1 / near.decode == pytest.approx(3 * 0.0005 + 2 * 4 * 12288 / 117e6, rel=0.05)
    with pytest.raises(UsageError, match="--split tensor cuts matrices"):
        make_plan(medium("Q4_K_M"), machine, Wish(split=Split.TENSOR))
