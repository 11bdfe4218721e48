"""A repair changes the keys alone, survives being cut off anywhere, and can be taken back."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm35local.errors import ModelFileError
from mm35local.models.gguf_header import read_header
from mm35local.models.inspect import inspect_file
from mm35local.models.repair import record_path, repair, undo
from tests.models.gguf_bytes import Tensor, gguf, string, text, uint32

_YARN = "mistral3.rope.scaling.yarn_log_multiplier"
_PRE = "tokenizer.ggml.pre"
_WEIGHTS = os.urandom(256)


def _float(key: str, value: float) -> bytes:
    return string(key) + struct.pack("<If", 6, value)


def _bad_file(folder: Path, yarn: float = 1.0, pre: str = "pixtral", filler: int = 0) -> Path:
    values = [
        text("general.architecture", "mistral3"),
        _float("mistral3.rope.scaling.factor", 64.0),
        _float(_YARN, yarn),
        text(_PRE, pre),
        text("tokenizer.chat_template", "x" * filler),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b"),
        uint32("mistral3.block_count", 1),
    ]
    path = folder / "bad.gguf"
    path.write_bytes(gguf(values, [Tensor("w", (64,), 0, 0)], 0) + _WEIGHTS)
    return path


def _without_record(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_key_alone_changes(tmp_path: Path) -> None:
    path = _bad_file(tmp_path, pre="tekken")
    before, span = path.read_bytes(), read_header(path).spans[_YARN]
    done = repair(path)
    after = path.read_bytes()
    assert done.changes == (f"{_YARN}: 1.0 → 0.0",)
    assert after[span.offset : span.offset + 4] == bytes(4)
    assert after[: span.offset] + before[span.offset : span.offset + 4] + after[span.offset + 4 :] == before
    assert inspect_file(path).warnings[:1] == ("it has no chat template: conversations are spelled by mm35's own rules "
                                               "or not at all",)  # fmt: skip


def test_a_shorter_value_leaves_weights_and_other_keys_where_they_are(tmp_path: Path) -> None:
    path = _bad_file(tmp_path, filler=3)
    before = read_header(path)
    done = repair(path)
    after = read_header(path)
    assert set(done.changes) == {f"{_YARN}: 1.0 → 0.0", f"{_PRE}: pixtral → tekken"}
    assert after.metadata == {**before.metadata, _YARN: 0.0, _PRE: "tekken"}
    assert (after.tensors, after.data_offset, after.file_bytes) == (
        before.tensors, before.data_offset, before.file_bytes,
    )  # fmt: skip
    assert path.read_bytes()[-len(_WEIGHTS) :] == _WEIGHTS


def test_a_header_without_room_keeps_its_pre_type_and_says_so(tmp_path: Path) -> None:
    """One length in 32 has the tensor table end one byte behind a boundary: a byte less would move the weights."""
    results = {}
    for filler in range(32):
        path = _bad_file(tmp_path, filler=filler)
        results[filler] = repair(path)
        assert path.read_bytes()[-len(_WEIGHTS) :] == _WEIGHTS
        assert read_header(path).metadata[_YARN] == 0.0
        record_path(path).unlink()
    tight = [done for done in results.values() if done.not_in_place]
    assert len(tight) == 1
    assert "corrected to tekken while loading" in tight[0].not_in_place[0]


def test_undo_gives_the_same_bytes_and_removes_the_record(tmp_path: Path) -> None:
    path = _bad_file(tmp_path)
    before = path.read_bytes()
    done = repair(path)
    assert done.record.is_file()
    assert path.read_bytes() != before
    undo(path)
    assert path.read_bytes() == before
    assert _without_record(tmp_path) == [path.name]
    with pytest.raises(ModelFileError, match="nothing to undo"):
        undo(path)


def test_a_second_repair_finds_nothing(tmp_path: Path) -> None:
    path = _bad_file(tmp_path)
    repair(path)
    after = path.read_bytes()
    done = repair(path)
    assert (done.changes, done.not_in_place) == ((), ())
    assert path.read_bytes() == after


def test_a_right_file_is_left_alone(tmp_path: Path) -> None:
    path = _bad_file(tmp_path, yarn=0.0, pre="tekken")
    before = path.stat().st_mtime_ns
    assert repair(path).changes == ()
    assert path.stat().st_mtime_ns == before
    assert _without_record(tmp_path) == [path.name]


@given(num_bytes=st.integers(0, 200), is_undone=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_repair_that_was_cut_off_is_finished_or_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, is_undone: bool
) -> None:
    """The power fails after `num_bytes` of the new bytes."""
    record_path(tmp_path / "bad.gguf").unlink(missing_ok=True)
    path = _bad_file(tmp_path)
    before = path.read_bytes()
    pwrite = os.pwrite

    def cut_off(fd: int, data: bytes, offset: int) -> int:
        pwrite(fd, data[:num_bytes], offset)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", cut_off)
        with pytest.raises(KeyboardInterrupt):
            repair(path)
    if is_undone:
        undo(path)
        assert path.read_bytes() == before
    else:
        repair(path)
        assert read_header(path).metadata[_PRE] == "tekken"
        assert read_header(path).metadata[_YARN] == 0.0
        undo(path)
        assert path.read_bytes() == before


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)


@pytest.mark.usefixtures("full_disk")
def test_without_a_record_no_byte_changes(tmp_path: Path) -> None:
    path = _bad_file(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match="No space left"):
        repair(path)
    assert path.read_bytes() == before
    assert _without_record(tmp_path) == [path.name]


def test_a_file_that_was_replaced_since_is_left_alone(tmp_path: Path) -> None:
    path = _bad_file(tmp_path)
    repair(path)
    path.write_bytes(path.read_bytes() + bytes(32))
    with pytest.raises(ModelFileError, match="it is not the file that bad"):
        undo(path)
    record_path(path).write_text("{}")
    with pytest.raises(ModelFileError, match="not a record of a repair"):
        repair(path)
