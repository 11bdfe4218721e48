"""gguf-py reads what was laid out; a partial file can be gone on with, and gets its name only when asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mm35local.errors import ConversionError
from quantize.gguf_file import GgufFile, GgufLayout, TensorSpec, lay_out
from quantize.metadata import Metadata

_METADATA: Metadata = {
    "general.name": "x",
    "a.count": 7,
    "a.float": 0.5,
    "a.flag": True,
    "a.names": ["é", ""],
    "a.ids": [3, 1],
}
_F32, _BYTES = 0, 4


def _layout() -> GgufLayout:
    specs = [TensorSpec("vector", (5,), _F32, 5 * _BYTES), TensorSpec("matrix", (3, 2), _F32, 2 * _BYTES)]
    return lay_out("mistral3", _METADATA, specs)


def _data(*values: float) -> memoryview:
    return np.array(values, np.float32).view(np.uint8).data


@contextmanager
def _opened(path: Path) -> Iterator[GgufFile]:
    file = GgufFile(path, _layout())
    try:
        yield file
    finally:
        file.close()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with _opened(path) as file:
        file.begin()
        file.write(1, 2 * _BYTES, _data(3, 4, 5, 6))
        file.write(0, 0, _data(*range(5)))
        file.write(1, 0, _data(1, 2))
        file.sync()
        whole, tensors = file.digest()
        assert not path.exists()
        file.publish()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gguf"]
    assert path.stat().st_size == _layout().num_bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == whole
    assert tensors == [hashlib.sha256(_data(*values)).hexdigest() for values in (range(5), range(1, 7))]
    reader = GGUFReader(path)
    assert {name: reader.fields[name].contents() for name in _METADATA} == _METADATA
    assert reader.fields["general.architecture"].contents() == "mistral3"
    assert [(tensor.name, tensor.data.tolist()) for tensor in reader.tensors] == [
        ("vector", [0, 1, 2, 3, 4]),
        ("matrix", [[1, 2], [3, 4], [5, 6]]),
    ]
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)


def test_a_partial_file_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    (tmp_path / "x.gguf.partial").write_bytes(b"stale" * 10_000)
    with _opened(path) as file:
        assert not file.is_begun
        file.begin()
        file.write(0, 0, _data(*range(5)))
    with _opened(path) as file:
        assert file.is_begun
        assert file.digest()[1][0] == hashlib.sha256(_data(*range(5))).hexdigest()
        assert file.missing_bytes < _layout().num_bytes


def test_an_older_file_stays_until_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_text("old")
    with _opened(path) as file:
        file.begin()
        assert path.read_text() == "old"
        file.discard()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gguf"]


def test_a_file_cut_short_while_it_is_read_back(tmp_path: Path) -> None:
    with _opened(tmp_path / "x.gguf") as file:
        file.begin()
        with (tmp_path / "x.gguf.partial").open("r+b") as other:
            other.truncate(10)
        with pytest.raises(ConversionError, match="cut short meanwhile"):
            file.digest()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="No such file") as caught:
        GgufFile(tmp_path / "none" / "x.gguf", _layout())
    assert caught.value.hint
