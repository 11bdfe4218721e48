from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm35local.errors import ModelFileError
from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.gguf_header import parse_header, read_header
from tests.models.gguf_bytes import Tensor, gguf, string, text, tiny_llama


def write(folder: Path, data: bytes) -> Path:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return path


def test_the_type_table_is_gguf_pys() -> None:
    assert {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()} == {
        kind: tuple(row) for kind, row in GGML_TYPES.items()
    }


def test_reads_a_real_file(smollm2_path: Path) -> None:
    header = read_header(smollm2_path)
    assert header.architecture == "llama"
    assert header.number("block_count") == 30
    assert header.metadata["tokenizer.ggml.tokens"][2] == "<|im_end|>"
    last = max(header.tensors, key=lambda tensor: tensor.offset)
    assert header.data_offset + last.offset + last.num_bytes == header.file_bytes


def test_reads_what_was_written(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, tiny_llama()))
    assert header.number("context_length") == 4096
    assert [(t.name, t.shape, t.type_name, t.num_bytes) for t in header.tensors] == [
        ("token_embd.weight", (64, 64), "F32", 16384)
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "too short"),
        (b"GG", "too short"),
        (b"PK\x03\x04" + bytes(64), "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 99) + bytes(64), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0) + bytes(64), "cannot fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60) + bytes(64), "cannot fit"),
        (tiny_llama()[:200], "ends inside its header"),
        (tiny_llama(num_data_bytes=100), "cut short: tensor token_embd.weight"),
        (gguf([], [Tensor("w", (64,), 77, 0)], 256), "unknown type 77"),
        (gguf([], [Tensor("w", (33,), 2, 0)], 256), "no multiple of Q4_0's 32"),
        (gguf([], [Tensor("w", (1 << 60, 1 << 60), 0, 0)], 256), "no size of a tensor"),
        (gguf([], [Tensor("w", (), 0, 0)], 256), "0 dimensions"),
        (gguf([text("general.alignment", "x")], [], 0), "power of two"),
        (gguf([text("a.b", "x"), text("c", ""), text("a.b", "y")], [], 0), r"at byte 69: key a\.b stands there twice"),
        (gguf([], [Tensor("w", (8,), 0, 0), Tensor("w", (8,), 0, 32)], 64), "tensor w stands there twice"),
        (
            gguf([], [Tensor("w", (16,), 0, 0), Tensor("v", (8,), 0, 32)], 64),
            "at byte 128: tensor v: it overlaps tensor w",
        ),
        (gguf([], [Tensor("w", (8,), 0, 4)], 64), "tensor w: its offset 4 is no multiple of 32"),
        (gguf([], [Tensor("w", (0,), 0, 0)], 64), "no size of a tensor"),
        (gguf([], [Tensor("w" * 300, (8,), 0, 0)], 64), "name of 300 bytes"),
        (gguf([string("k") + struct.pack("<IIQ", 9, 9, 1)], [], 64), "key k is an array of type 9"),
        (gguf([string("k") + struct.pack("<IIQ", 9, 0, 1 << 40)], [], 64), "array k: 1099511627776 cannot fit"),
        (gguf([string("k") + struct.pack("<IQ", 8, 1 << 40)], [], 64), "ends inside its header, in k"),
        (gguf([string("k") + struct.pack("<I", 99)], [], 64), "key k has the unknown value type 99"),
        (gguf([struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", 4, 0)], [], 64), "is not UTF-8"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ModelFileError, match=problem):
        read_header(write(tmp_path, data))


def test_a_count_that_would_fill_the_memory_is_refused_though_the_file_is_large_enough(tmp_path: Path) -> None:
    """A sparse file of 40 GB, with an array that says it has as many bytes."""
    path = write(tmp_path, gguf([string("k") + struct.pack("<IIQ", 9, 0, 39 << 30)], [], 0))
    os.truncate(path, 40 << 30)
    with pytest.raises(ModelFileError, match="cannot fit in the"):
        read_header(path)


def test_headers_have_a_budget(tmp_path: Path) -> None:
    many = gguf([string(key) + struct.pack("<IIQ", 9, 0, 3_000_000) + bytes(3_000_000) for key in "ab"], [], 0)
    with pytest.raises(ModelFileError, match="array b of 3000000: more than 4000000 values"):
        read_header(write(tmp_path, many))
    path = write(tmp_path, gguf([string("k") + struct.pack("<IQ", 8, 65 << 20)], [], 0))
    os.truncate(path, 100 << 20)
    with pytest.raises(ModelFileError, match="a header beyond 64 MiB, in k"):
        read_header(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path, tmp_path / "pipe.gguf"):
        with pytest.raises(ModelFileError, match="expected a file"):
            read_header(path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, tiny_llama())
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: tiny_llama()[:100][offset:][:count])
    with pytest.raises(ModelFileError, match="became shorter"):
        read_header(path)


def test_spans_say_where_each_value_stands(tmp_path: Path) -> None:
    path = write(tmp_path, tiny_llama())
    header, data = read_header(path), path.read_bytes()
    span = header.spans["llama.context_length"]
    assert struct.unpack("<I", data[span.offset :][: span.num_bytes]) == (4096,)
    assert header.spans["general.architecture"].num_bytes == 8 + len("llama")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_header(tmp_path / "absent.gguf")


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, gguf([text("general.architecture", "llama")], [], 0)))
    with pytest.raises(ModelFileError, match=r"llama\.block_count"):
        header.number("block_count")


@st.composite
def damages(draw: st.DrawFn, num_bytes: int) -> Callable[[bytearray], None]:
    """Bytes replaced, a length or count replaced by a hostile one, bytes cut out or put in, or the end cut off."""
    at = draw(st.integers(0, num_bytes - 1))
    how = draw(st.sampled_from(["bytes", "number", "remove", "insert", "cut"]))
    content = draw(st.binary(min_size=1, max_size=12))
    number = draw(st.sampled_from([0, 1, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]))

    def apply(data: bytearray) -> None:
        match how:
            case "bytes":
                data[at : at + len(content)] = content
            case "number":
                data[at : at + 8] = struct.pack("<Q", number)
            case "remove":
                del data[at : at + len(content)]
            case "insert":
                data[at:at] = content
            case "cut":
                del data[at:]

    return apply


def _survives(path: Path, data: bytes) -> None:
    """A header or our own error, in memory of the size of what was read."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        assert read_header(path).file_bytes == len(data)
    except ModelFileError:
        pass
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 30 * len(data) + (1 << 20)


@given(damage=st.lists(damages(420), min_size=1, max_size=4))
@settings(max_examples=300, deadline=2000)
def test_any_damage_ends_in_our_error_or_a_header(
    tmp_path_factory: pytest.TempPathFactory, damage: list[Callable[[bytearray], None]]
) -> None:
    data = bytearray(tiny_llama())
    for apply in damage:
        apply(data)
    _survives(tmp_path_factory.getbasetemp() / "fuzz.gguf", bytes(data))


@given(data=st.data())
@settings(max_examples=30, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_does_any_damage_to_a_real_header(data: st.DataObject, real_header: bytes, tmp_path: Path) -> None:
    """Damage falls near the keys and near the tensor table, where it hurts, or anywhere."""
    table_at = real_header.index(b"token_embd.weight") - 8
    raw = bytearray(real_header)
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.sampled_from([0, table_at]))
        part = raw[begin:]
        data.draw(damages(min(3000, max(1, len(part)))))(part)
        raw[begin:] = part
    _survives(tmp_path / "m.gguf", bytes(raw))


@pytest.fixture(scope="session")
def real_header(pocket_gguf: Path) -> bytes:
    """Of the pocket model, with its vocabulary; the weights after it are missing, which is one damage more."""
    path = pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf"
    return path.read_bytes()[: parse_header(path).data_offset]
