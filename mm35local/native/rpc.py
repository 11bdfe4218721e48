"""ggml's RPC backend: devices of other processes and machines, and lending this process's own.

The protocol knows no authentication: whoever reaches the port can use, and crash, the process behind it.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from typing import Any

from mm35local.errors import RpcError
from mm35local.native.devices import ggml_function, handles

_CONNECT_SECONDS = 5.0


def remote_devices(endpoint: str) -> list[int]:
    """The `ggml_backend_dev_t` of each device that the worker at host:port lends. Raises RpcError.

    ggml aborts the process where nobody answers, or another version: so look first whether anybody does.
    """
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise RpcError(endpoint, f"does not answer: {error.strerror or error}") from error
    registry = _rpc_function("ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)(endpoint.encode())
    if not registry:
        raise RpcError(endpoint, "lends no device")
    count = ggml_function("ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)(registry)
    get = ggml_function("ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return [int(get(registry, index)) for index in range(count)]


def lend_devices(endpoint: str, num_threads: int) -> None:
    """Serve this process's GPUs, or its CPU where there is none, one client after the other; never returns.

    Raises RpcError where the address cannot be listened on.
    """
    lent = handles("gpu", "igpu") or handles("cpu")
    array = (ctypes.c_void_p * len(lent))(*lent)
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    start = _rpc_function("ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p, size, size, pointer)
    start(endpoint.encode(), None, num_threads, len(lent), ctypes.cast(array, pointer))
    raise RpcError(endpoint, "cannot be listened on", "choose another --host or --port")


def _rpc_function(symbol: str, result: type | None, *arguments: type) -> Callable[..., Any]:
    try:
        return ggml_function(symbol, result, *arguments)
    except AttributeError as error:
        raise RpcError(
            "here", "cannot be used: llama.cpp is built without RPC", "mm35 doctor shows the line that builds it with"
        ) from error
