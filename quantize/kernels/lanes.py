"""Thirty-two floats, or integers, at once: Python expressions that become LLVM vector code.

`Floats` and `Ints` stand for values of the function under construction; an operator on them appends an instruction.
Every lane is computed as C computes a float: each operation rounds once, none is fused or reordered, since no
instruction here carries a fast-math flag. LLVM splits the vectors, as the processor's are shorter; the parts keep it
busy while one of them waits for a division.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir

LANES = 32
FLOAT, HALF, INT, BYTE, INDEX = ir.FloatType(), ir.HalfType(), ir.IntType(32), ir.IntType(8), ir.IntType(64)
POINTER = ir.PointerType()
_FLOATS, _INTS, _BYTES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT, BYTE))
_Vector = TypeVar("_Vector", "Floats", "Ints", "Bytes")


def floats(builder: Any, number: float) -> Floats:
    """The float32 nearest to `number` in every lane."""
    return Floats(builder, ir.Constant(_FLOATS, [float(np.float32(number))] * LANES))


@dataclass(frozen=True, slots=True)
class Mask:
    """A truth value a lane; comparisons with NaN are false, as in C."""

    builder: Any
    value: Any

    def __and__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.and_(self.value, other.value))

    def __or__(self, other: Mask) -> Mask:
        return Mask(self.builder, self.builder.or_(self.value, other.value))

    def pick(self, yes: _Vector, no: _Vector) -> _Vector:
        """C's `mask ? yes : no`, both computed."""
        return type(yes)(self.builder, self.builder.select(self.value, yes.value, no.value))


@dataclass(frozen=True, slots=True)
class Floats:
    builder: Any
    value: Any

    def __add__(self, other: Floats | float) -> Floats:
        return Floats(self.builder, self.builder.fadd(self.value, self._with(other)))

    def __sub__(self, other: Floats | float) -> Floats:
        return Floats(self.builder, self.builder.fsub(self.value, self._with(other)))

    def __mul__(self, other: Floats | float) -> Floats:
        return Floats(self.builder, self.builder.fmul(self.value, self._with(other)))

    def __truediv__(self, other: Floats | float) -> Floats:
        return Floats(self.builder, self.builder.fdiv(self.value, self._with(other)))

    def __rtruediv__(self, other: float) -> Floats:
        return floats(self.builder, other) / self

    def __neg__(self) -> Floats:
        return Floats(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Floats:
        return self._call("llvm.fabs")

    def sqrt(self) -> Floats:
        return self._call("llvm.sqrt")

    def __lt__(self, other: Floats | float) -> Mask:
        return self._compare("<", other)

    def __gt__(self, other: Floats | float) -> Mask:
        return self._compare(">", other)

    def equals(self, other: Floats | float) -> Mask:
        return self._compare("==", other)

    def as_half(self) -> Floats:
        """Rounded to float16, nearest even, and back."""
        halves = self.builder.fptrunc(self.value, ir.VectorType(HALF, LANES))
        return Floats(self.builder, self.builder.fpext(halves, _FLOATS))

    def nearest_int(self) -> Ints:
        """ggml's own rounding, by the mantissa of value + 1.5 * 2^23; beyond +-2^22 and for NaN as wrong as there."""
        shifted = self.builder.bitcast((self + 12582912.0).value, _INTS)
        return (Ints(self.builder, shifted) & 0x007FFFFF) - 0x00400000

    def rounded(self) -> Ints:
        """C's `(int) roundf(x)`: halves away from zero; what no integer holds becomes INT_MIN, as x86 has it."""
        return Ints(self.builder, self.builder.fptosi(self._call("llvm.round").value, _INTS))

    def store_half(self, lane: int, pointer: Any) -> None:
        """One lane, rounded to float16."""
        half = self.builder.fptrunc(self.builder.extract_element(self.value, INT(lane)), HALF)
        self.builder.store(half, pointer, align=1)

    def _with(self, other: Floats | float) -> Any:
        return (other if isinstance(other, Floats) else floats(self.builder, other)).value

    def _compare(self, how: str, other: Floats | float) -> Mask:
        return Mask(self.builder, self.builder.fcmp_ordered(how, self.value, self._with(other)))

    def _call(self, name: str) -> Floats:
        module, full_name = self.builder.module, f"{name}.v{LANES}f32"
        function = module.globals.get(full_name) or ir.Function(module, ir.FunctionType(_FLOATS, [_FLOATS]), full_name)
        return Floats(self.builder, self.builder.call(function, [self.value]))


@dataclass(frozen=True, slots=True)
class Ints:
    builder: Any
    value: Any

    def __sub__(self, other: int) -> Ints:
        return Ints(self.builder, self.builder.sub(self.value, self._all(other)))

    def __and__(self, other: int) -> Ints:
        return Ints(self.builder, self.builder.and_(self.value, self._all(other)))

    def at_least(self, least: int) -> Ints:
        return self._bounded(">", least)

    def at_most(self, most: int) -> Ints:
        return self._bounded("<", most)

    def to_floats(self) -> Floats:
        return Floats(self.builder, self.builder.sitofp(self.value, _FLOATS))

    def as_signed_byte(self) -> Ints:
        """What C's int8_t keeps."""
        return Ints(self.builder, self.builder.sext(self.to_bytes().value, _INTS))

    def to_bytes(self) -> Bytes:
        """The lowest eight bits."""
        return Bytes(self.builder, self.builder.trunc(self.value, _BYTES))

    def _bounded(self, how: str, bound: int) -> Ints:
        keep = self.builder.icmp_signed(how, self.value, self._all(bound))
        return Mask(self.builder, keep).pick(self, Ints(self.builder, self._all(bound)))

    @staticmethod
    def _all(number: int) -> Any:
        return ir.Constant(_INTS, [number] * LANES)


@dataclass(frozen=True, slots=True)
class Bytes:
    """An unsigned byte a lane."""

    builder: Any
    value: Any

    def __and__(self, bits: int) -> Bytes:
        return Bytes(self.builder, self.builder.and_(self.value, self._all(bits)))

    def __or__(self, other: Bytes) -> Bytes:
        return Bytes(self.builder, self.builder.or_(self.value, other.value))

    def __lshift__(self, count: int) -> Bytes:
        return Bytes(self.builder, self.builder.shl(self.value, self._all(count)))

    def __rshift__(self, count: int) -> Bytes:
        return Bytes(self.builder, self.builder.lshr(self.value, self._all(count)))

    def store(self, pointer: Any, first: int = 0, count: int = LANES) -> None:
        """The bytes of `count` lanes."""
        lanes = range(first, first + count)
        self.builder.store(_shuffle(self.builder, self.value, self.value, lanes), pointer, align=1)

    @staticmethod
    def _all(number: int) -> Any:
        return ir.Constant(_BYTES, [number] * LANES)


class Variable:
    """A value that a loop changes."""

    def __init__(self, first: Floats) -> None:
        self._builder = first.builder
        with self._builder.goto_entry_block():
            self._pointer = self._builder.alloca(_FLOATS)
        self.value = first

    @property
    def value(self) -> Floats:
        return Floats(self._builder, self._builder.load(self._pointer, typ=_FLOATS))

    @value.setter
    def value(self, new: Floats) -> None:
        self._builder.store(new.value, self._pointer)


def load_floats(builder: Any, pointer: Any) -> Floats:
    """A float32 a lane from `pointer` on, aligned as a float is."""
    return Floats(builder, builder.load(pointer, align=4, typ=_FLOATS))


def offset(builder: Any, pointer: Any, count: Any, kind: Any = BYTE) -> Any:
    """`pointer` moved by `count` elements, a number or a value."""
    steps = INDEX(count) if isinstance(count, int) else count
    return builder.gep(pointer, [steps], source_etype=kind)


def shuffled(vector: _Vector, order: Sequence[int]) -> _Vector:
    """Lane k gets what lane `order[k]` holds."""
    return type(vector)(vector.builder, _shuffle(vector.builder, vector.value, vector.value, order))


def transpose(rows: Sequence[_Vector]) -> list[_Vector]:
    """Rows of a matrix -> its columns; of two matrices of 16 side by side, where there are 16 rows.

    At each power of two, the blocks off the diagonal change places.
    """
    matrix, builder = list(rows), rows[0].builder
    for bit in (bit for bit in (1, 2, 4, 8, 16) if bit < len(rows)):
        for row in (row for row in range(len(rows)) if not row & bit):
            low, high = matrix[row], matrix[row | bit]
            kept = [lane & ~bit | (LANES if lane & bit else 0) for lane in range(LANES)]
            moved = [lane | bit | (LANES if lane & bit else 0) for lane in range(LANES)]
            matrix[row] = type(low)(builder, _shuffle(builder, low.value, high.value, kept))
            matrix[row | bit] = type(low)(builder, _shuffle(builder, low.value, high.value, moved))
    return matrix


def _shuffle(builder: Any, low: Any, high: Any, lanes: Sequence[int]) -> Any:
    order = ir.Constant(ir.VectorType(INT, len(lanes)), list(lanes))
    return builder.shuffle_vector(low, high, order)


@contextmanager
def repeated(builder: Any, count: Any) -> Iterator[Any]:
    """The instructions of the `with` block run for each index below `count`, at least once."""
    before, body, after = builder.block, builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(INDEX)
    index.add_incoming(INDEX(0), before)
    yield index
    following = builder.add(index, INDEX(1))
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)


def chosen(builder: Any, numbers: Sequence[float], index: Any) -> Floats:
    """numbers[index] in every lane."""
    module, table = builder.module, ir.Constant(ir.ArrayType(FLOAT, len(numbers)), list(numbers))
    stored = ir.GlobalVariable(module, table.type, module.get_unique_name("numbers"))
    stored.initializer, stored.global_constant, stored.linkage = table, True, "internal"
    number = builder.load(offset(builder, stored, index, FLOAT), typ=FLOAT)
    vector = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, INDEX(0))
    return shuffled(Floats(builder, vector), [0] * LANES)
