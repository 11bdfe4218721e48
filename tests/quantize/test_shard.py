"""Headers of shards: good ones are understood, every damaged one ends in our own error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.errors import CheckpointError
from quantize.shard import read_shard
from tests.quantize.safetensors_bytes import entry, shard_bytes


def _read(tmp_path: Path, raw: bytes) -> dict[str, tuple[int, int]]:
    path = tmp_path / "s.safetensors"
    path.write_bytes(raw)
    return {tensor.name: (tensor.offset, tensor.num_bytes) for tensor in read_shard(path)}


def test_tensors_come_in_file_order_with_offsets_from_the_start(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": entry(4, 10), "a": entry(0, 4, [2], "BF16"), "e": entry(4, 4)}
    raw = shard_bytes(header, b"x" * 10)
    start = len(raw) - 10
    assert _read(tmp_path, raw) == {"a": (start, 4), "e": (start + 4, 0), "b": (start + 4, 6)}


_WRONG: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "header of 0 bytes"),
    "short file": (b"\x01\0\0", "header of 1 bytes"),
    "giant header": (shard_bytes(b"{}", header_length=2**63), "header of 9223372036854775808 bytes"),
    "header past the end": (shard_bytes(b"{}", header_length=3), "header of 3 bytes, expected 1 to 2"),
    "no JSON": (shard_bytes(b"hello"), "not valid JSON"),
    "no UTF-8": (shard_bytes(b'{"\xff": 1}'), "not valid JSON"),
    "a list": (shard_bytes(b"[]"), "expected a JSON object"),
    "nested too deep": (shard_bytes(b"[" * 200_000), "nested too deep"),
    "a long number": (shard_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "a name twice": (shard_bytes(b'{"a": {}, "a": {}}'), "'a' stands there twice"),
    "no object": (shard_bytes({"a": 1}), "tensor a: expected an object"),
    "unknown dtype": (shard_bytes({"a": entry(0, 1, dtype="F4")}, b"x"), "tensor a: unknown dtype 'F4'"),
    "unhashable dtype": (shard_bytes({"a": {"dtype": []}}), "tensor a: unknown dtype"),
    "negative size": (shard_bytes({"a": entry(0, 1, [-1])}, b"x"), "tensor a: expected a shape"),
    "float size": (shard_bytes(b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', b"x"), "expected a shape"),
    "bool size": (shard_bytes({"a": entry(0, 1, [True])}, b"x"), "expected a shape"),
    "many dimensions": (shard_bytes({"a": entry(0, 1, [1] * 9)}, b"x"), "at most 8 sizes"),
    "huge shape": (shard_bytes({"a": entry(0, 1, [2**62, 2**62])}, b"x"), "takes"),
    "one offset": (shard_bytes({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"x"), "two data_offsets"),
    "backwards": (shard_bytes({"a": entry(2, 1, [1])}, b"xx"), "data_offsets give -1"),
    "wrong length": (shard_bytes({"a": entry(0, 2, [1])}, b"xx"), "takes 1 bytes, data_offsets give 2"),
    "past the end": (shard_bytes({"a": entry(0, 3)}, b"xx"), "tensor a: ends at byte"),
    "overlap": (shard_bytes({"a": entry(0, 2), "b": entry(1, 3)}, b"xxx"), "tensor b: overlaps tensor a"),
    "same place": (shard_bytes({"a": entry(0, 2), "b": entry(0, 2)}, b"xx"), "overlaps"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    raw, problem = _WRONG[case]
    with pytest.raises(CheckpointError) as caught:
        _read(tmp_path, raw)
    assert problem in caught.value.message
    assert caught.value.file == str(tmp_path / "s.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_shard(tmp_path / "none.safetensors")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SIZES = st.lists(st.integers(-1, 9) | st.just(2**64), max_size=3) | _JSON
_ENTRY = _JSON | st.fixed_dictionaries(
    {"dtype": st.sampled_from(["U8", "BF16", "F8_E4M3", "F32"]) | _JSON, "shape": _SIZES, "data_offsets": _SIZES}
)
_HEADER = st.dictionaries(st.text(max_size=4), _ENTRY, max_size=4)


@settings(max_examples=300, deadline=None)
@given(header=_HEADER, data=st.binary(max_size=40))
def test_any_header_is_read_or_refused(header: dict[str, Any], data: bytes) -> None:
    _read_or_refuse(shard_bytes(header, data))


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=4), cut=st.integers(0, 300))
def test_any_damage_is_read_or_refused(flips: list[tuple[int, int]], cut: int) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": entry(0, 8, [2, 2], "BF16"), "b": entry(8, 12, [2, 2], "F8_E4M3")}
    raw = bytearray(shard_bytes(header, b"x" * 12))
    for position, value in flips:
        raw[position % len(raw)] = value
    _read_or_refuse(bytes(raw[: cut or None]))


def _read_or_refuse(raw: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(raw)
        file.flush()
        try:
            tensors = read_shard(Path(file.name))
        except CheckpointError:
            return
        assert all(8 <= tensor.offset <= tensor.offset + tensor.num_bytes <= len(raw) for tensor in tensors)
        assert sum(tensor.num_bytes for tensor in tensors) <= len(raw)
