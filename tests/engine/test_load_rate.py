from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.engine.api import Loading
from mm35local.engine.load_rate import LoadRate, file_bytes


def test_a_steady_load() -> None:
    rate = LoadRate(1000)
    assert rate.at(0.1, 10.0) == Loading(0.1, 100)
    assert rate.at(0.2, 11.0) == Loading(0.2, 200, 100.0, 8.0)
    assert rate.at(0.6, 12.0) == Loading(0.6, 600, 250.0, 1.6)


def test_only_the_last_seconds_count() -> None:
    rate = LoadRate(100_000)
    for second in range(20):
        rate.at(second * 0.04, float(second))
    for second in range(20, 26):
        told = rate.at(0.76 + (second - 19) * 0.01, float(second))
    assert told.bytes_per_second == pytest.approx(1000)


def test_no_rate_before_there_is_one() -> None:
    rate = LoadRate(1000)
    for now in (1.0, 1.1, 5.0):
        assert rate.at(0.5, now) == Loading(0.5, 500)
    assert LoadRate(0).at(0.5, 1.0) == Loading(0.5, 0)


def test_the_bytes_of_a_file_and_of_all_its_parts(tmp_path: Path) -> None:
    for number, size in ((1, 10), (2, 200)):
        (tmp_path / f"m-0000{number}-of-00003.gguf").write_bytes(bytes(size))
    assert file_bytes(tmp_path / "m-00001-of-00003.gguf") == 210
    assert file_bytes(tmp_path / "m-00002-of-00003.gguf") == 210
    (tmp_path / "whole.gguf").write_bytes(bytes(7))
    assert file_bytes(tmp_path / "whole.gguf") == 7
    assert file_bytes(tmp_path / "none.gguf") == 0
