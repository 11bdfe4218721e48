"""The journal vouches only for whole lines of its own conversion, wherever it was torn."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.errors import ConversionError
from quantize.journal import Journal

_DONE = {"a.weight": "1" * 64, "b.weight": "2" * 64, "c.weight": "3" * 64}


def _write(path: Path) -> None:
    with closing(Journal(path, "f")) as journal:
        journal.start()
        journal.book(dict(list(_DONE.items())[:1]))
        journal.book(dict(list(_DONE.items())[1:]))


def test_what_was_booked_is_known_again(tmp_path: Path) -> None:
    _write(tmp_path / "x.journal")
    with closing(Journal(tmp_path / "x.journal", "f")) as journal:
        assert journal.done == _DONE
        journal.strike(["b.weight"])
    with closing(Journal(tmp_path / "x.journal", "f")) as journal:
        assert list(journal.done) == ["a.weight", "c.weight"]


def test_another_conversion_starts_with_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "x.journal")
    with closing(Journal(tmp_path / "x.journal", "g")) as journal:
        assert journal.done == {}


@given(cut=st.integers(0, 400), tail=st.binary(max_size=40))
def test_a_torn_end_costs_only_what_it_tore(tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes) -> None:
    """Power loss leaves any prefix, and any garbage after it; what follows is appended to whole lines only."""
    path = tmp_path_factory.mktemp("torn") / "x.journal"
    _write(path)
    text = path.read_bytes()
    prefix = text[:cut]
    path.write_bytes(prefix + tail)
    num_whole = max(0, prefix.count(b"\n") - 1)
    with closing(Journal(path, "f")) as journal:
        assert list(journal.done.items())[:num_whole] == list(_DONE.items())[:num_whole]
        assert len(journal.done) <= num_whole + 1
        if not journal.done:
            journal.start()
        journal.book({"d.weight": "4" * 64})
        expected = dict(journal.done)
    with closing(Journal(path, "f")) as journal:
        assert journal.done == expected


def test_one_conversion_at_a_time(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "x.journal", "f")), pytest.raises(ConversionError, match="another conversion"):
        Journal(tmp_path / "x.journal", "f")
