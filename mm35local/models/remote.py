"""Devices that an `mm35 rpc-worker` lends: asked over ggml's RPC protocol before anything is loaded.

llama.cpp itself aborts the process when a worker is missing or of another version; here both are errors with names.
Messages (little endian): command u8, size u64, payload; the answer: size u64, payload.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import replace

from mm35local.errors import RpcError, UsageError
from mm35local.models.datasheets import SHEETS, typical_name
from mm35local.models.gpus import Gpu, Link, Machine

PROTOCOL = (7, 0)
"""Of the llama.cpp that constraints.txt pins; a worker may be older in the minor number, not newer."""
_SECONDS = 5.0
_ALLOC_BUFFER, _BUFFER_GET_BASE, _FREE_BUFFER, _SET_TENSOR, _DEVICE_MEMORY, _HELLO, _DEVICE_COUNT = (
    0,
    3,
    4,
    6,
    11,
    14,
    15,
)
_HELLO_BYTES = 24
_TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
"""id, type, buffer, ne, nb, op, op_params, flags, src, view_src, view_offs, data, name, use_count."""
_PROBE_BYTES = 4 << 20
_NUM_ROUND_TRIPS, _NUM_TRANSFERS = 5, 3
_I8 = 24
_MAX_DEVICES = 16


def parse_endpoint(text: str) -> tuple[str, int]:
    """host and port. Raises UsageError: ggml takes names and IPv4 addresses only."""
    host, _, port = text.strip().rpartition(":")
    if not host or ":" in host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"--rpc {text}: expected HOST:PORT with a name or an IPv4 address", "--rpc 192.168.1.20:50052")
    return host, int(port)


def with_remote(machine: Machine, endpoints: Sequence[str]) -> Machine:
    """`machine` with the workers' devices after its own GPUs. Raises RpcError or UsageError."""
    remote = [gpu for endpoint in dict.fromkeys(endpoints) for gpu in probe(endpoint)]
    return replace(machine, gpus=(*machine.gpus, *remote))


def probe(endpoint: str) -> tuple[Gpu, ...]:
    """The devices lent there, with the memory that is free now and the link as a short transfer measures it.

    The worker does not tell what its devices are, so their speed is that of a common card of that size.
    """
    host, port = parse_endpoint(endpoint)
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _ask(endpoint, connection)
    except TimeoutError as error:
        raise RpcError(endpoint, "does not answer: it serves another engine, or is no RPC worker") from error
    except OSError as error:
        raise RpcError(endpoint, f"does not answer: {error.strerror or error}") from error


def _ask(endpoint: str, connection: socket.socket) -> tuple[Gpu, ...]:
    wire = _Wire(endpoint, connection)
    major, minor, patch, _padding = wire.ask(_HELLO, bytes(_HELLO_BYTES), 4 + _HELLO_BYTES)[:4]
    if major != PROTOCOL[0] or minor > PROTOCOL[1]:
        ours = ".".join(map(str, PROTOCOL))
        hint = "install the same version of mm35local (and so of llama.cpp) on both machines"
        raise RpcError(endpoint, f"speaks version {major}.{minor}.{patch} of the protocol, this one {ours}", hint)
    (num_devices,) = struct.unpack("<I", wire.ask(_DEVICE_COUNT, b"", 4))
    if not 1 <= num_devices <= _MAX_DEVICES:
        raise RpcError(endpoint, f"says it has {num_devices} devices, expected 1 to {_MAX_DEVICES}")
    link = _measure(wire)
    gpus = []
    for index in range(num_devices):
        free, total = struct.unpack("<QQ", wire.ask(_DEVICE_MEMORY, struct.pack("<I", index), 16))
        sheet = SHEETS[typical_name(total)]
        name = endpoint if num_devices == 1 else f"{endpoint} #{index}"
        gpus.append(Gpu(name, total, free, sheet.bandwidth_gb * 1e9, sheet.tflops * 1e12, link=link))
    return tuple(gpus)


def _measure(wire: _Wire) -> Link:
    """The quickest of some round trips, and of some times 4 MiB into a buffer over there."""
    round_trips = []
    for _ in range(_NUM_ROUND_TRIPS):
        start = time.perf_counter()
        wire.ask(_DEVICE_COUNT, b"", 4)
        round_trips.append(time.perf_counter() - start)
    pointer, size = struct.unpack("<QQ", wire.ask(_ALLOC_BUFFER, struct.pack("<IQ", 0, _PROBE_BYTES), 16))
    if not pointer or size < _PROBE_BYTES:
        return Link(min(round_trips), 0.0)  # no room for it: then nothing will be placed there either
    (base,) = struct.unpack("<Q", wire.ask(_BUFFER_GET_BASE, struct.pack("<Q", pointer), 8))
    shape, strides = (_PROBE_BYTES, 1, 1, 1), (1, _PROBE_BYTES, _PROBE_BYTES, _PROBE_BYTES)
    tensor = _TENSOR.pack(1, _I8, pointer, *shape, *strides, *[0] * 28, 0, 0, base, b"probe", 0)
    message = tensor + struct.pack("<BQ", 0, 0) + bytes(_PROBE_BYTES)  # not to be cached, offset 0
    transfers = []
    for _ in range(_NUM_TRANSFERS):
        start = time.perf_counter()
        wire.tell(_SET_TENSOR, message)
        wire.ask(_DEVICE_COUNT, b"", 4)
        transfers.append(time.perf_counter() - start)
    wire.tell(_FREE_BUFFER, struct.pack("<Q", pointer))
    return Link(min(round_trips), _PROBE_BYTES / max(min(transfers) - min(round_trips), 1e-6))


class _Wire:
    def __init__(self, endpoint: str, connection: socket.socket) -> None:
        self._endpoint = endpoint
        self._connection = connection

    def tell(self, command: int, payload: bytes) -> None:
        self._connection.sendall(struct.pack("<BQ", command, len(payload)) + payload)

    def ask(self, command: int, payload: bytes, num_bytes: int) -> bytes:
        """The answer, which must have `num_bytes`."""
        self.tell(command, payload)
        (size,) = struct.unpack("<Q", self._receive(8))
        if size != num_bytes:
            raise RpcError(self._endpoint, f"answers {size} bytes where {num_bytes} belong: no RPC worker")
        return self._receive(num_bytes)

    def _receive(self, num_bytes: int) -> bytes:
        data = b""
        while len(data) < num_bytes:
            more = self._connection.recv(num_bytes - len(data))
            if not more:
                raise RpcError(self._endpoint, "hung up: it is of another version, or no RPC worker")
            data += more
        return data
