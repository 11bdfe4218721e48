"""Which quantiser a block of rows goes through: a kernel that was seen to write ggml's bytes here, or ggml's own.

Invariant: whoever is chosen, the bytes are those of `ggml_quantize_chunk` in this process. A libggml from another
compiler, or with other flags, may round differently; then the probe differs and ggml does the work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from mm35local.native import quant
from quantize.kernels.probe import probe_rows

if TYPE_CHECKING:
    from quantize.kernels.machine import Emitter, Kernel, Lookup

_FEWEST = {"Q4_K": 1 << 23, "Q5_K": 1 << 24, "Q6_K": 1 << 23, "Q8_0": 1 << 26}
"""Elements. Of so many ggml takes as long, on one core, as our kernel with its compiling (bench/kernels.py)."""
_FEWEST_DECODED = 1 << 26
KERNEL_TYPES = tuple(GGMLQuantizationType[name].value for name in _FEWEST)
_NO_LLVMLITE = "Q4_K, Q5_K, Q6_K and Q8_0 take several times as long without llvmlite: pip install 'mm35local[fast]'"
_LOCK = Lock()
"""So that a kernel is compiled and tried once, however many threads ask for it first."""


@dataclass(frozen=True, slots=True)
class Choice:
    kernel: Kernel | None
    note: str = ""
    """Why ggml does what a kernel could; empty where there is nothing to tell."""


@dataclass(frozen=True, slots=True)
class Worth:
    """For what machine code is compiled: for so much work that it is done sooner, compiling included."""

    types: frozenset[int] = frozenset()
    is_decoding: bool = False


def worth(num_elements: Mapping[int, int], num_decoded: int, num_threads: int) -> Worth:
    """Of quantising so many elements of each ggml type, and decoding so many from FP8, on `num_threads` cores.

    While one thread compiles, the others wait.
    """
    fewest = zip(KERNEL_TYPES, _FEWEST.values(), strict=True)
    types = frozenset(kind for kind, count in fewest if num_elements.get(kind, 0) >= count * num_threads)
    return Worth(types, num_decoded >= _FEWEST_DECODED * num_threads)


def quantize_rows(
    ggml_type: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """`native.quant.quantize_rows`, the same bytes sooner. Finite rows only; releases the GIL."""
    kernel = choice(ggml_type).kernel if importance is None else None
    if kernel is None:
        return quant.quantize_rows(ggml_type, rows, importance)
    return run(kernel, ggml_type, rows)


def choice(ggml_type: int) -> Choice:
    """Compiles and tries a kernel on first use, which takes about half a second."""
    if ggml_type not in KERNEL_TYPES:
        return Choice(None)
    with _LOCK:
        return _choose(ggml_type)


def notes(types: Collection[int], *, is_tried: bool) -> tuple[str, ...]:
    """What the user should know of the quantisers of these types, each once; only what is known without compiling
    unless `is_tried`."""
    if not is_tried:
        return (_NO_LLVMLITE,) if not _has_llvmlite() and set(types) & set(KERNEL_TYPES) else ()
    return tuple(dict.fromkeys(note for kind in sorted(types) if (note := choice(kind).note)))


def decode(table: NDArray[np.float32], codes: NDArray[np.uint8], *, is_compiled: bool) -> NDArray[np.float32]:
    """table[codes], by our own code where that is wanted and can be had; releases the GIL."""
    lookup = _lookup() if is_compiled else None
    if lookup is None or not codes.size:
        return table.take(codes)  # half the time of table[codes]
    assert table.dtype == np.float32
    assert table.flags.c_contiguous
    assert codes.flags.c_contiguous
    numbers = np.empty(codes.shape, np.float32)
    lookup.run(table.ctypes.data, codes.ctypes.data, numbers.ctypes.data, codes.size)
    return numbers


def _lookup() -> Lookup | None:
    with _LOCK:
        return _compile_lookup()


@cache
def _compile_lookup() -> Lookup | None:
    if not _has_llvmlite():
        return None
    from quantize.kernels import machine

    return machine.compile_lookup() if machine.can_compile() else None


def _has_llvmlite() -> bool:
    try:
        from quantize.kernels import machine  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


@cache
def _choose(ggml_type: int) -> Choice:
    if not _has_llvmlite():
        return Choice(None, _NO_LLVMLITE)
    from quantize.kernels import machine

    if not machine.can_compile():
        return Choice(None)
    kernel = machine.compile_kernel(emitter(ggml_type))
    if not _agrees(kernel, ggml_type):
        name = quant.type_name(ggml_type).upper()
        return Choice(
            None, f"this build of llama.cpp rounds {name} in its own way, so its own slower quantiser is used"
        )
    return Choice(kernel)


def emitter(ggml_type: int) -> Emitter:
    from quantize.kernels import q4_q5_k, q6_k, q8_0

    emitters: tuple[Emitter, ...] = (q4_q5_k.Q4_K, q4_q5_k.Q5_K, q6_k.Q6_K, q8_0.Q8_0)
    return emitters[KERNEL_TYPES.index(ggml_type)]


def _agrees(kernel: Kernel, ggml_type: int) -> bool:
    rows = probe_rows()
    return np.array_equal(run(kernel, ggml_type, rows), quant.quantize_rows(ggml_type, rows))


def run(kernel: Kernel, ggml_type: int, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The blocks that are left over, where the kernel takes many at a time, go to ggml."""
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    num_rows, row_length = rows.shape
    out = np.empty(num_rows * quant.row_bytes(ggml_type, row_length), np.uint8)
    count = rows.size // kernel.num_elements
    if count:
        kernel.run(rows.ctypes.data, out.ctypes.data, count)
    if count * kernel.num_elements < rows.size:
        rest = rows.reshape(1, -1)[:, count * kernel.num_elements :]
        out[count * kernel.num_bytes :] = quant.quantize_rows(ggml_type, rest)
    return out
