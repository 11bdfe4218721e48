"""Products with weights in ggml's extra buffers, beside the same products with weights in plain memory.

An extra buffer keeps weights in the order that one kind of kernel wants: interleaved rows, or the tiles of Intel's AMX.
A kernel that its compiler got wrong ends the process, so `engine.cpu_kernels` runs this file as a child process.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mm35local.native.devices import ggml_function, handles
from mm35local.native.quant import InitParams, quantize_rows

Float32Array = npt.NDArray[np.float32]

_F32 = 0
_BLOCK_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 8, "q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_xs": 23}
"""Those that AMX has kernels for, as ggml.h's enum ggml_type numbers them."""
_ROW_LENGTH, _NUM_OUTPUTS = 512, 64
_BATCHES = (1, 33)
"""One row has kernels of its own; 33 leave a rest in every tile height."""
MOST_DEVIATION = 0.01
"""Of the largest element. Right kernels sum in another order (3e-7 was seen), and may round inputs otherwise."""
_CONTEXT_BYTES = 1 << 20
_WRONG = 3
"""1 and 2 are Python's own failures."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """The largest difference of any element, as a share of the largest element."""

    buffer: str
    block_type: str
    num_rows: int
    share: float

    @property
    def is_wrong(self) -> bool:
        return not self.share <= MOST_DEVIATION  # NaN is wrong too


def main() -> None:
    """Exit code 0 if all products are right, 3 if one is wrong; a signal where a kernel ends the process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise SystemExit(_WRONG if any(deviation.is_wrong for deviation in deviations()) else 0)


def deviations() -> Iterator[Deviation]:
    """Of every extra buffer that the CPU offers, for the block types it takes."""
    draw = np.random.default_rng(35)
    weights = draw.standard_normal((_NUM_OUTPUTS, _ROW_LENGTH), np.float32)
    rows = {count: draw.standard_normal((count, _ROW_LENGTH), np.float32) for count in _BATCHES}
    for buffer_type in _extra_buffer_types():
        name = ggml_function("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)(buffer_type).decode()
        for block_type, number in _BLOCK_TYPES.items():
            blocks = quantize_rows(number, weights)
            for count in _BATCHES:
                product = multiply(number, blocks, rows[count], buffer_type)
                plain = multiply(number, blocks, rows[count])
                if product is not None and plain is not None:
                    share = float(np.abs(product - plain).max() / np.abs(plain).max())
                    yield Deviation(name, block_type, count, share)


def multiply(
    ggml_type: int, blocks: npt.NDArray[np.uint8], rows: Float32Array, buffer_type: int | None = None
) -> Float32Array | None:
    """f32[rows, 512] times 64 quantised rows of 512 → f32[rows, 64], with the weights in a buffer of that type.

    Plain memory without one; None where the buffer's kernels do not take such weights.
    """
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    (cpu,) = handles("cpu")
    copy_in = ggml_function("ggml_backend_tensor_set", None, pointer, pointer, size, size)
    copy_out = ggml_function("ggml_backend_tensor_get", None, pointer, pointer, size, size)
    buffer_type = buffer_type or ggml_function("ggml_backend_dev_buffer_type", pointer, pointer)(cpu)
    with ExitStack() as stack:
        of_weights, of_rows = stack.enter_context(_context()), stack.enter_context(_context())
        left = _matrix(of_weights, ggml_type, _NUM_OUTPUTS)
        right = _matrix(of_rows, _F32, len(rows))
        product = ggml_function("ggml_mul_mat", pointer, pointer, pointer, pointer)(of_rows, left, right)
        stack.enter_context(_memory(of_weights, buffer_type))
        if not ggml_function("ggml_backend_dev_supports_op", ctypes.c_bool, pointer, pointer)(cpu, product):
            return None
        stack.enter_context(_memory(of_rows, ggml_function("ggml_backend_dev_buffer_type", pointer, pointer)(cpu)))
        copy_in(left, blocks.ctypes.data, 0, blocks.nbytes)
        copy_in(right, rows.ctypes.data, 0, rows.nbytes)
        _compute(cpu, of_rows, product)
        out = np.empty((len(rows), _NUM_OUTPUTS), np.float32)
        copy_out(product, out.ctypes.data, 0, out.nbytes)
        return out


def _extra_buffer_types() -> list[int]:
    """`ggml_backend_buffer_type_t` of the CPU's extra buffers, in the order in which llama.cpp tries them."""
    (cpu,) = handles("cpu")
    registry = ggml_function("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)(cpu)
    look_up = ggml_function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    address = look_up(registry, b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return []
    found = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(cpu)
    types: list[int] = []
    while found and (each := found[len(types)]) is not None:
        types.append(each)
    return types


@contextmanager
def _context() -> Iterator[int]:
    """A ggml context for descriptions of tensors; their data lies in buffers."""
    context = ggml_function("ggml_init", ctypes.c_void_p, InitParams)(InitParams(_CONTEXT_BYTES, None, True))
    try:
        yield context
    finally:
        ggml_function("ggml_free", None, ctypes.c_void_p)(context)


def _matrix(context: int, ggml_type: int, num_rows: int) -> int:
    i64, pointer = ctypes.c_int64, ctypes.c_void_p
    new = ggml_function("ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, i64, i64)
    return int(new(context, ggml_type, _ROW_LENGTH, num_rows))


@contextmanager
def _memory(context: int, buffer_type: int) -> Iterator[None]:
    """A buffer of that type for all tensors of the context that have none."""
    pointer = ctypes.c_void_p
    allocate = ggml_function("ggml_backend_alloc_ctx_tensors_from_buft", pointer, pointer, pointer)
    buffer = allocate(context, buffer_type)
    assert buffer, "some kilobytes"
    try:
        yield
    finally:
        ggml_function("ggml_backend_buffer_free", None, pointer)(buffer)


def _compute(device: int, context: int, product: int) -> None:
    pointer = ctypes.c_void_p
    graph = ggml_function("ggml_new_graph", pointer, pointer)(context)
    ggml_function("ggml_build_forward_expand", None, pointer, pointer)(graph, product)
    backend = ggml_function("ggml_backend_dev_init", pointer, pointer, ctypes.c_char_p)(device, None)
    try:
        code = ggml_function("ggml_backend_graph_compute", ctypes.c_int, pointer, pointer)(backend, graph)
        assert code == 0, f"ggml_backend_graph_compute: {code}"
    finally:
        ggml_function("ggml_backend_free", None, pointer)(backend)


if __name__ == "__main__":
    main()
