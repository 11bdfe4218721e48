"""Kernels as machine code of this processor: LLVM compiles them in memory, a quantiser in up to half a second."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import llvmlite.binding as llvm
from llvmlite import ir

from quantize.kernels import lookup
from quantize.kernels.lanes import INDEX, POINTER, offset, repeated

_NAME = "quantize"


class Emitter(Protocol):
    @property
    def num_elements(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        """Instructions that turn `num_elements` float32 at `source` into `num_bytes` at `target`."""


@dataclass(frozen=True, slots=True)
class Kernel:
    num_elements: int
    """What is quantised at a time; more than a block for some types."""
    num_bytes: int
    _function: Callable[[int, int, int], None]
    _engine: Any
    """Owns the code: while it lives the function can be called."""

    def run(self, source: int, target: int, count: int) -> None:
        """`count` (1 at least) times `num_elements` float32 from the address `source` on. Releases the GIL."""
        assert count > 0
        self._function(source, target, count)


@dataclass(frozen=True, slots=True)
class Lookup:
    _function: Callable[[int, int, int, int], None]
    _engine: Any

    def run(self, table: int, source: int, target: int, count: int) -> None:
        """`lookup.module` says what; `count` is 1 at least. Releases the GIL."""
        assert count > 0
        self._function(table, source, target, count)


def can_compile() -> bool:
    """Elsewhere C compilers fuse multiplications with additions by default, so that other bytes are right; and float16
    would need a library."""
    return platform.machine() in ("x86_64", "AMD64") and bool(llvm.get_host_cpu_features().get("f16c"))


def compile_kernel(emitter: Emitter) -> Kernel:
    engine = _compiled(_module(emitter))
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return Kernel(emitter.num_elements, emitter.num_bytes, prototype(engine.get_function_address(_NAME)), engine)


def compile_lookup() -> Lookup:
    engine = _compiled(lookup.module())
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return Lookup(prototype(engine.get_function_address(lookup.NAME)), engine)


def _compiled(code: Any) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(str(code))
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit",
        opt=2,
        jit=True,
    )
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _module(emitter: Emitter) -> Any:
    module = ir.Module(_NAME)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, INDEX]), _NAME)
    source, target, count = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with repeated(builder, count) as index:
        emitter.emit(
            builder,
            offset(builder, source, builder.mul(index, INDEX(4 * emitter.num_elements))),
            offset(builder, target, builder.mul(index, INDEX(emitter.num_bytes))),
        )
    builder.ret_void()
    return module
