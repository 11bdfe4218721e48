"""A small `make fuzz-files` with every run, and that its net catches something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quantize.fuzz_files import Findings, _one_file, fuzz


@pytest.mark.parametrize("format_", ["safetensors", "heads", "gguf"])
def test_damaged_headers_are_refused_in_our_own_words(format_: str) -> None:
    findings = fuzz(format_, least=400, first_seed=35)
    assert findings.total >= 400
    assert findings.num_read > 0
    assert len(findings.problems) > 8


def test_another_error_than_ours_is_not_swallowed(tmp_path: Path) -> None:
    def careless(path: Path) -> None:
        int(path.read_bytes()[:1])

    with pytest.raises(ValueError, match="invalid literal"):
        _one_file(careless, tmp_path / "x", b"x", Findings())
