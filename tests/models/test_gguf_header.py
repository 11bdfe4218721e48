from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st

from mm35local.errors import ModelFileError
from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.gguf_header import read_header
from tests.models.gguf_bytes import Tensor, gguf, text, tiny_llama


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
        (gguf([], [Tensor("w", (1 << 60, 1 << 60), 0, 0)], 256), "cut short"),
        (gguf([], [Tensor("w", (), 0, 0)], 256), "0 dimensions"),
        (gguf([text("general.alignment", "x")], [], 0), "power of two"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ModelFileError, match=problem):
        read_header(write(tmp_path, data))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_header(tmp_path / "absent.gguf")


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, gguf([text("general.architecture", "llama")], [], 0)))
    with pytest.raises(ModelFileError, match=r"llama\.block_count"):
        header.number("block_count")


@given(at=st.integers(0, 400), value=st.binary(min_size=1, max_size=12))
def test_any_damage_ends_in_our_error_or_a_header(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes
) -> None:
    data = bytearray(tiny_llama())
    data[at : at + len(value)] = value
    path = write(tmp_path_factory.mktemp("fuzz"), bytes(data))
    try:
        header = read_header(path)
    except ModelFileError:
        return
    assert header.file_bytes == len(data)
