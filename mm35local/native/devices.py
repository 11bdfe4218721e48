"""The devices that ggml's backends offer in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_cpp._ggml import libggml

_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")


@dataclass(frozen=True, slots=True)
class Device:
    """One backend device; `kind` is cpu, gpu, igpu, accel or meta. Integrated GPUs share the host's memory."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


def devices() -> list[Device]:
    """All devices, in ggml's order: GPUs as the driver counts them, the CPU last."""
    return [_device(handle) for handle in _handles()]


def handles(*kinds: str) -> list[int]:
    """The `ggml_backend_dev_t` of the devices of these kinds, in ggml's order."""
    return [handle for handle in _handles() if _device(handle).kind in kinds]


def _handles() -> list[int]:
    count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
    get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return [int(get(index)) for index in range(count())]


def _device(handle: int) -> Device:
    name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    description = ggml_function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    kind = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    size_pointer = ctypes.POINTER(ctypes.c_size_t)
    memory = ggml_function("ggml_backend_dev_memory", None, ctypes.c_void_p, size_pointer, size_pointer)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    memory(handle, ctypes.byref(free), ctypes.byref(total))
    index = kind(handle)
    return Device(
        name(handle).decode("utf-8", "replace"),
        description(handle).decode("utf-8", "replace").strip(),
        _KINDS[index] if index < len(_KINDS) else f"type {index}",
        free.value,
        total.value,
    )


def ggml_function(symbol: str, result: type | None, *arguments: type) -> Callable[..., Any]:
    """A function of ggml's libraries, typed. Raises AttributeError where this build has none of that name."""
    function: Any = libggml[symbol]
    function.restype = result
    function.argtypes = list(arguments)
    bound: Callable[..., Any] = function
    return bound
