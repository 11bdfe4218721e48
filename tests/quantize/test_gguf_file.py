"""The file appears whole or not at all, and gguf-py reads what was laid out."""

from __future__ import annotations

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


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    layout = _layout()
    with GgufFile(path, layout) as file:
        file.write(1, 2 * _BYTES, _data(3, 4, 5, 6))
        file.write(0, 0, _data(*range(5)))
        file.write(1, 0, _data(1, 2))
        assert not path.exists()
        file.commit()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gguf"]
    assert path.stat().st_size == layout.num_bytes
    reader = GGUFReader(path)
    assert {name: reader.fields[name].contents() for name in _METADATA} == _METADATA
    assert reader.fields["general.architecture"].contents() == "mistral3"
    assert [(tensor.name, tensor.data.tolist()) for tensor in reader.tensors] == [
        ("vector", [0, 1, 2, 3, 4]),
        ("matrix", [[1, 2], [3, 4], [5, 6]]),
    ]
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)


def test_leaving_without_commit_removes_everything(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), GgufFile(tmp_path / "x.gguf", _layout()):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_commit(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_text("old")
    with GgufFile(path, _layout()):
        assert path.read_text() == "old"
    assert path.read_text() == "old"


def test_a_forgotten_row_cannot_be_committed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rows are missing"), GgufFile(tmp_path / "x.gguf", _layout()) as file:
        file.write(0, 0, _data(*range(5)))
        file.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_stale_partial_is_overwritten_but_a_live_one_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    (tmp_path / "x.gguf.partial").write_bytes(b"stale" * 10_000)
    with GgufFile(path, _layout()) as file:
        with pytest.raises(ConversionError, match="being written by another conversion"):
            GgufFile(path, _layout())
        file.write(0, 0, _data(*range(5)))
        file.write(1, 0, _data(*range(6)))
        file.commit()
    assert path.stat().st_size == _layout().num_bytes


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="No such file") as caught:
        GgufFile(tmp_path / "none" / "x.gguf", _layout())
    assert caught.value.hint
