"""Our quantisers write ggml's bytes, for any finite weights; where they would not, ggml is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mm35local.native import quant
from quantize.fp8 import E4M3_TABLE, scaled_table
from quantize.kernels import choose, machine
from quantize.kernels.choose import KERNEL_TYPES
from quantize.kernels.lanes import LANES, load_floats, offset, transpose
from quantize.kernels.probe import probe_rows

Q4_K, Q4_0 = GGMLQuantizationType.Q4_K.value, GGMLQuantizationType.Q4_0.value
_WITH_SUMS = [kind for kind in KERNEL_TYPES if kind != GGMLQuantizationType.Q8_0]
_FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture
def _undecided() -> Iterator[None]:
    for cached in (choose._choose, choose._compile_lookup):
        cached.cache_clear()
    yield
    for cached in (choose._choose, choose._compile_lookup):
        cached.cache_clear()


def _assert_same(ggml_type: int, rows: NDArray[np.float32]) -> None:
    kernel = choose.choice(ggml_type).kernel
    assert kernel is not None
    ours = choose.run(kernel, ggml_type, rows)
    np.testing.assert_array_equal(ours, quant.quantize_rows(ggml_type, rows))


@pytest.mark.parametrize("ggml_type", KERNEL_TYPES)
@pytest.mark.parametrize("seed", range(1, 9))
def test_weights_and_edge_cases_give_ggmls_bytes(ggml_type: int, seed: int) -> None:
    _assert_same(ggml_type, probe_rows(seed))


@pytest.mark.parametrize("ggml_type", KERNEL_TYPES)
@pytest.mark.parametrize("power", range(-45, 39, 2))
def test_every_magnitude_gives_ggmls_bytes(ggml_type: int, power: int) -> None:
    rows = np.random.default_rng(power + 45).standard_normal((8, 1024)) * 10.0**power
    _assert_same(ggml_type, np.clip(rows, -3e38, 3e38).astype(np.float32))


@pytest.mark.parametrize("ggml_type", KERNEL_TYPES)
def test_any_bits_give_ggmls_bytes(ggml_type: int) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, (256, 1024), dtype=np.uint32).view(np.float32)
    _assert_same(ggml_type, np.where(np.isfinite(bits), bits, np.float32(0)))


@pytest.mark.parametrize("ggml_type", KERNEL_TYPES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_few_numbers_give_ggmls_bytes(ggml_type: int, data: st.DataObject) -> None:
    _assert_same(ggml_type, data.draw(arrays(np.float32, (2, 256), elements=_FINITE, fill=_FINITE)))


@pytest.mark.parametrize("ggml_type", KERNEL_TYPES)
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 7])
def test_a_block_left_over_is_quantised_too(ggml_type: int, num_blocks: int) -> None:
    rows = np.random.default_rng(num_blocks).standard_normal((num_blocks, 256), np.float32)
    _assert_same(ggml_type, rows)
    _assert_same(ggml_type, rows.reshape(1, -1))


@pytest.mark.usefixtures("_undecided")
def test_threads_share_one_kernel_and_its_bytes() -> None:
    rows = [probe_rows(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        packed = list(pool.map(lambda block: choose.quantize_rows(Q4_K, block), rows))
        kernels = set(map(id, pool.map(lambda _: choose.choice(Q4_K).kernel, rows)))
    assert len(kernels) == 1
    for block, found in zip(rows, packed, strict=True):
        np.testing.assert_array_equal(found, quant.quantize_rows(Q4_K, block))


def test_weighed_columns_and_other_types_are_ggmls() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 512), np.float32)
    importance = np.random.default_rng(1).random(512, np.float32)
    found = choose.quantize_rows(Q4_K, rows, importance)
    np.testing.assert_array_equal(found, quant.quantize_rows(Q4_K, rows, importance))
    assert (found != choose.quantize_rows(Q4_K, rows)).any()
    np.testing.assert_array_equal(choose.quantize_rows(Q4_0, rows), quant.quantize_rows(Q4_0, rows))
    assert choose.notes([Q4_0], is_tried=True) == choose.notes([Q4_0], is_tried=False) == ()


@pytest.mark.usefixtures("_undecided")
@pytest.mark.parametrize("ggml_type", _WITH_SUMS)
def test_a_build_that_rounds_otherwise_is_told_and_left_to_ggml(
    ggml_type: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a libggml compiled for fused multiply-add does to ours happens here to ours instead."""
    plain = machine._module
    monkeypatch.setattr(machine, "_module", lambda emitter: _fused(str(plain(emitter))))
    assert choose.choice(ggml_type).kernel is None
    (note,) = choose.notes([ggml_type, Q4_0], is_tried=True)
    assert "in its own way" in note
    assert choose.notes([ggml_type], is_tried=False) == ()
    np.testing.assert_array_equal(
        choose.quantize_rows(ggml_type, probe_rows()), quant.quantize_rows(ggml_type, probe_rows())
    )


def _fused(code: str) -> str:
    for operation in ("fmul", "fadd", "fsub"):
        code = code.replace(f"{operation} <", f"{operation} contract <")
    return code


@pytest.mark.usefixtures("_undecided")
def test_without_llvmlite_ggml_quantises_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quantize.kernels.machine", None)
    monkeypatch.delattr("quantize.kernels.machine")
    assert choose.choice(Q4_K).kernel is None
    for is_tried in (True, False):
        assert "mm35local[fast]" in "".join(choose.notes(KERNEL_TYPES, is_tried=is_tried))
        assert len(choose.notes(KERNEL_TYPES, is_tried=is_tried)) == 1
    codes = np.arange(256, dtype=np.uint8)
    assert choose.decode(E4M3_TABLE, codes, is_compiled=True).tobytes() == E4M3_TABLE.tobytes()
    np.testing.assert_array_equal(choose.quantize_rows(Q4_K, probe_rows()), quant.quantize_rows(Q4_K, probe_rows()))


@pytest.mark.usefixtures("_undecided")
def test_other_processors_are_left_to_ggml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert choose.choice(Q4_K) == choose.Choice(None)


@pytest.mark.usefixtures("_undecided")
def test_nothing_is_compiled_to_tell_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_compiled", lambda code: pytest.fail("compiled"))
    assert choose.notes(KERNEL_TYPES, is_tried=False) == ()


def test_little_work_is_not_worth_compiling() -> None:
    little, much = {Q4_K: (1 << 23) - 1, Q4_0: 1 << 40}, {Q4_K: 1 << 23, Q4_0: 1 << 40}
    assert choose.worth(little, (1 << 26) - 1, 1) == choose.Worth()
    assert choose.worth(much, 1 << 26, 1) == choose.Worth(frozenset({Q4_K}), is_decoding=True)
    assert choose.worth(much, 1 << 26, 2) == choose.Worth(), "all threads wait while one compiles"


@pytest.mark.parametrize("scale", [1.0, 0.0123, -3.4e38, 1e-44, 0.0])
@pytest.mark.parametrize("length", [1, 31, 4097])
def test_codes_become_the_same_numbers_bit_for_bit(scale: float, length: int) -> None:
    """NaN, zeros of both signs and what is denormal among them."""
    with np.errstate(over="ignore", invalid="ignore"):
        table = scaled_table(scale)
    codes = np.concatenate([np.arange(256), np.random.default_rng(length).integers(0, 256, length)]).astype(np.uint8)
    assert choose._lookup() is not None
    ours = choose.decode(table, codes, is_compiled=True)
    assert ours.tobytes() == choose.decode(table, codes, is_compiled=False).tobytes() == table[codes].tobytes()
    assert choose.decode(table, codes[:0], is_compiled=True).shape == (0,)


class _Transposing:
    num_elements, num_bytes = LANES * LANES, 4 * LANES * LANES

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        rows = [load_floats(builder, offset(builder, source, 4 * LANES * row)) for row in range(LANES)]
        for number, column in enumerate(transpose(rows)):
            builder.store(column.value, offset(builder, target, 4 * LANES * number), align=4)


class _Rounding:
    num_elements, num_bytes = LANES, 4 * LANES

    def emit(self, builder: Any, source: Any, target: Any) -> None:
        builder.store(load_floats(builder, source).nearest_int().value, target, align=4)


def test_rows_become_columns() -> None:
    matrix = np.arange(2 * LANES * LANES, dtype=np.float32).reshape(2, LANES, LANES)
    columns = np.empty_like(matrix)
    machine.compile_kernel(_Transposing()).run(matrix.ctypes.data, columns.ctypes.data, 2)
    np.testing.assert_array_equal(columns, matrix.swapaxes(1, 2))


def test_halves_round_to_even() -> None:
    values = np.concatenate(
        [
            np.arange(-4, 4) + 0.5,
            [-4194303.0, 4194303.0, 0.49999997, -0.0, 1e-40, 31.5, 2.4, -2.6],
            np.linspace(-40, 40, LANES - 16),
        ]
    )
    numbers, rounded = values.astype(np.float32), np.empty(LANES, np.int32)
    machine.compile_kernel(_Rounding()).run(numbers.ctypes.data, rounded.ctypes.data, 1)
    np.testing.assert_array_equal(rounded, np.rint(numbers))
