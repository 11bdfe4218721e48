"""Bytes through a table of 256 floats, which is how FP8 is decoded: a float for each byte, and no array of indices.

numpy's `take` makes a 64-bit index of every byte first, and waits for the memory that those lie in.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from quantize.kernels.lanes import BYTE, FLOAT, INDEX, POINTER, offset, repeated

NAME = "look_up"


def module() -> Any:
    """`look_up(table, source, target, count)`: target[i] = table[source[i]] for each i below `count`, 1 at least."""
    found = ir.Module(NAME)
    function = ir.Function(found, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, POINTER, INDEX]), NAME)
    for pointer in function.args[:3]:
        pointer.add_attribute("noalias")
    table, source, target, count = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with repeated(builder, count) as index:
        code = builder.zext(builder.load(offset(builder, source, index), typ=BYTE), INDEX)
        number = builder.load(offset(builder, table, code, FLOAT), typ=FLOAT)
        builder.store(number, offset(builder, target, index, FLOAT))
    builder.ret_void()
    return found
