"""Which quantiser a block of rows goes through: a kernel that was seen to write ggml's bytes here, or ggml's own.

Invariant: whoever is chosen, the bytes are those of `ggml_quantize_chunk` in this process. A libggml from another
compiler, or with other flags, may round differently; then the probe differs and ggml does the work.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    from quantize.kernels.machine import Emitter, Kernel

KERNEL_TYPES = tuple(GGMLQuantizationType[name].value for name in ("Q4_K", "Q5_K", "Q6_K", "Q8_0"))
_LOCK = Lock()
"""So that a kernel is compiled and tried once, however many threads ask for it first."""


@dataclass(frozen=True, slots=True)
class Choice:
    kernel: Kernel | None
    note: str = ""
    """Why ggml does what a kernel could; empty where there is nothing to tell."""


def quantize_rows(
    ggml_type: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """`native.quant.quantize_rows`, the same bytes sooner. Finite rows only; releases the GIL."""
    kernel = choice(ggml_type).kernel if importance is None else None
    if kernel is None:
        return quant.quantize_rows(ggml_type, rows, importance)
    return run(kernel, ggml_type, rows)


def choice(ggml_type: int) -> Choice:
    """Compiles and tries a kernel on first use, which takes half a second."""
    if ggml_type not in KERNEL_TYPES:
        return Choice(None)
    with _LOCK:
        return _choose(ggml_type)


def notes(ggml_types: Iterable[int]) -> tuple[str, ...]:
    """What the user should know of the quantisers of these types, each once."""
    return tuple(dict.fromkeys(note for kind in sorted(set(ggml_types)) if (note := choice(kind).note)))


@cache
def _choose(ggml_type: int) -> Choice:
    try:
        from quantize.kernels import machine
    except (ImportError, OSError):
        return Choice(
            None, "Q4_K, Q5_K, Q6_K and Q8_0 take several times as long without llvmlite: pip install 'mm35local[fast]'"
        )
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
