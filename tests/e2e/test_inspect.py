"""`mm35 inspect` and `mm35 repair` on a converted model that got the known mistakes: the keys alone change."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest

from mm35local.cli.app import run
from mm35local.models.gguf_header import read_header

_YARN = "mistral3.rope.scaling.yarn_log_multiplier"


@pytest.fixture
def broken(pocket_gguf: Path, tmp_path: Path) -> Path:
    """The pocket model with the YaRN key of files made before 2026-05-02."""
    path = Path(shutil.copy(pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf", tmp_path))
    with path.open("r+b") as file:
        file.seek(read_header(path).spans[_YARN].offset)
        file.write(struct.pack("<f", 1.0))
    return path


def _tensor_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[read_header(path).data_offset :]).hexdigest()


def test_inspect_names_the_mistake_and_repair_corrects_it(
    broken: Path, pocket_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, damaged = _tensor_hash(broken), broken.read_bytes()
    assert run(["inspect", str(broken), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "mistral3"
    assert {share["type"] for share in facts["types"]} == {"Q8_0", "F32"}
    assert any(_YARN in warning for warning in facts["warnings"])
    assert run(["repair", str(broken)]) == 0
    assert f"{_YARN}: 1.0 → 0.0" in capsys.readouterr().out
    assert _tensor_hash(broken) == weights
    assert broken.read_bytes() == (pocket_gguf / broken.name).read_bytes()
    assert run(["inspect", str(broken)]) == 0
    assert "Q8_0" in capsys.readouterr().out
    assert run(["repair", "--undo", str(broken)]) == 0
    assert broken.read_bytes() == damaged


def test_a_file_that_is_none_gets_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(range(200)))
    for command in ("inspect", "repair"):
        assert run([command, str(tmp_path / "x.gguf")]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 2
