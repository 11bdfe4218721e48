"""llama.cpp's quantisation: rows to blocks through libggml, and libllama's own choice of a type for every tensor.

Invariant: every C symbol used is looked up before the first call; a llama.cpp that renamed one is refused in words.
The calls release the GIL, so threads quantise in parallel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mm35local.errors import ConversionError

_F32 = 0
_QUANT_MODEL = "_Z31llama_quant_model_from_metadataPK22llama_quant_model_desc"
_QUANT_INIT = "_Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params"
_QUANT_TYPES = "_Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensorP9ggml_typem"
_QUANT_ALLOWS = "_Z38llama_quant_tensor_allows_quantizationPK19quantize_state_implPK11ggml_tensor"
_QUANT_FREE = "_Z16llama_quant_freeP19quantize_state_impl"
_SMALLEST_BLOCK = 32


class _ModelDesc(ctypes.Structure):
    _fields_ = (
        ("architecture", ctypes.c_char_p),
        ("n_embd", ctypes.c_uint32),
        ("n_ff", ctypes.c_uint32),
        ("n_layer", ctypes.c_uint32),
        ("n_head", ctypes.c_uint32),
        ("n_head_kv", ctypes.c_uint32),
        ("n_expert", ctypes.c_uint32),
        ("n_embd_head_k", ctypes.c_uint32),
        ("n_embd_head_v", ctypes.c_uint32),
    )


class _TensorOverride(ctypes.Structure):
    """llama_model_tensor_override; an array of them ends with a null pattern."""

    _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What libllama's rules for mixes look at."""

    architecture: str
    n_embd: int
    n_ff: int
    num_layers: int
    n_head: int
    n_head_kv: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class _Symbols:
    init_params: Any
    quant_model: Any
    quant_init: Any
    quant_types: Any
    quant_allows: Any
    quant_free: Any
    model_free: Any
    tensor_overhead: Any
    context_new: Any
    context_free: Any
    tensor_2d: Any
    set_name: Any
    row_size: Any
    quantize_init: Any
    quantize_chunk: Any
    type_name: Any


@cache
def _symbols() -> _Symbols:
    from llama_cpp import llama_cpp

    llama = llama_cpp._lib
    ggml = ctypes.CDLL(str(Path(llama._name).with_name(Path(llama._name).name.replace("llama", "ggml-base"))))
    ptr, size, i64, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_char_p
    default_params = llama_cpp.llama_model_quantize_default_params
    return _Symbols(
        default_params,
        _function(llama, _QUANT_MODEL, ptr, ctypes.POINTER(_ModelDesc)),
        _function(llama, _QUANT_INIT, ptr, ptr, ptr),
        _function(
            llama, _QUANT_TYPES, None, ptr, ctypes.c_int, ctypes.POINTER(ptr), ctypes.POINTER(ctypes.c_int), size
        ),
        _function(llama, _QUANT_ALLOWS, ctypes.c_bool, ptr, ptr),
        _function(llama, _QUANT_FREE, None, ptr),
        _function(llama, "llama_model_free", None, ptr),
        _function(ggml, "ggml_tensor_overhead", size),
        _function(ggml, "ggml_init", ptr, InitParams),
        _function(ggml, "ggml_free", None, ptr),
        _function(ggml, "ggml_new_tensor_2d", ptr, ptr, ctypes.c_int, i64, i64),
        _function(ggml, "ggml_set_name", ptr, ptr, text),
        _function(ggml, "ggml_row_size", size, ctypes.c_int, i64),
        _function(ggml, "ggml_quantize_init", None, ctypes.c_int),
        _function(ggml, "ggml_quantize_chunk", size, ctypes.c_int, ptr, ptr, i64, i64, i64, ptr),
        _function(ggml, "ggml_type_name", text, ctypes.c_int),
    )


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    try:
        symbol = library[name]
    except AttributeError as error:
        raise ConversionError(
            f"this llama.cpp has no {name}, which the converter needs",
            "install the version of llama-cpp-python that pyproject.toml pins",
        ) from error
    symbol.restype = result
    symbol.argtypes = list(arguments)
    return symbol


def row_bytes(ggml_type: int, row_length: int) -> int:
    """Bytes of one row of `row_length` elements; the length must be a multiple of the type's block."""
    return int(_symbols().row_size(ggml_type, row_length))


def type_name(ggml_type: int) -> str:
    """ggml's own name, e.g. `q4_K`."""
    return str(_symbols().type_name(ggml_type).decode())


def quantize_rows(
    ggml_type: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """[num_rows, row_length] float32, C order → the bytes of the same rows in `ggml_type`. Releases the GIL.

    `importance`, [row_length] float32, weighs the columns (llama.cpp's imatrix).
    """
    assert rows.ndim == 2
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    num_rows, row_length = rows.shape
    out = np.empty(num_rows * row_bytes(ggml_type, row_length), np.uint8)
    symbols = _symbols()
    symbols.quantize_init(ggml_type)
    assert importance is None or (importance.shape == (row_length,) and importance.dtype == np.float32)
    weights = None if importance is None else importance.ctypes.data
    num_bytes = symbols.quantize_chunk(ggml_type, rows.ctypes.data, out.ctypes.data, 0, num_rows, row_length, weights)
    assert num_bytes == out.nbytes, f"ggml wrote {num_bytes} bytes, {out.nbytes} expected"
    return out


def assign_types(
    model: ModelShape,
    tensors: Sequence[tuple[str, tuple[int, ...]]],
    ftype: int,
    overrides: Mapping[str, int] | None = None,
) -> list[int]:
    """libllama's ggml type for each (name, shape) under the mix `ftype` (llama.h's enum llama_ftype).

    `overrides` gives the tensors with these names other types, as llama-quantize's --tensor-type does.

    `tensors` are all of the model's, in llama.cpp's order (its rules count layers as they pass); shapes are
    (rows, row length) or (length,), the latter stay F32. Raises ConversionError for rows that no block type divides:
    libllama throws there, which would end the process.
    """
    for name, shape in tensors:
        if len(shape) == 2 and shape[-1] % _SMALLEST_BLOCK:
            raise ConversionError(
                f"{name} has rows of {shape[-1]}, expected a multiple of {_SMALLEST_BLOCK}",
                "convert to F16 or F32 with llama.cpp's own script",
            )
    with _quant_state(model, overrides or {}) as state, _bare_tensors(tensors) as bare:
        symbols = _symbols()
        indices = [index for index, tensor in enumerate(bare) if symbols.quant_allows(state, tensor)]
        chosen = (ctypes.c_int * len(indices))()
        pointers = (ctypes.c_void_p * len(indices))(*(bare[index] for index in indices))
        symbols.quant_types(state, ftype, pointers, chosen, len(indices))
        types = [_F32] * len(tensors)
        for index, ggml_type in zip(indices, chosen, strict=True):
            types[index] = ggml_type
        return types


@contextmanager
def _quant_state(shape: ModelShape, overrides: Mapping[str, int]) -> Iterator[int]:
    """Whole names as patterns: libllama's own regex engine would throw, and end the process, at what it cannot read."""
    symbols = _symbols()
    desc = _ModelDesc(
        shape.architecture.encode(), shape.n_embd, shape.n_ff, shape.num_layers, shape.n_head, shape.n_head_kv, 0,
        shape.head_dim, shape.head_dim,
    )  # fmt: skip
    params = symbols.init_params()
    patterns = [(f"^{name.replace('.', '[.]')}$".encode(), kind) for name, kind in overrides.items()]
    table = (_TensorOverride * (len(patterns) + 1))(*(_TensorOverride(*pattern) for pattern in patterns))
    params.tt_overrides = ctypes.cast(table, type(params.tt_overrides))
    model = symbols.quant_model(ctypes.byref(desc))
    try:
        state = symbols.quant_init(model, ctypes.addressof(params))
        try:
            yield state
        finally:
            symbols.quant_free(state)
    finally:
        symbols.model_free(model)


@contextmanager
def _bare_tensors(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[list[int]]:
    """ggml tensors with names and shapes but no data; a vector is a matrix of one row."""
    symbols = _symbols()
    context = symbols.context_new(InitParams((len(tensors) + 1) * symbols.tensor_overhead(), None, True))
    try:
        bare = []
        for name, shape in tensors:
            rows = shape[0] if len(shape) == 2 else 1
            tensor = symbols.tensor_2d(context, _F32, shape[-1], rows)
            symbols.set_name(tensor, name.encode())
            bare.append(tensor)
        yield bare
    finally:
        symbols.context_free(context)
