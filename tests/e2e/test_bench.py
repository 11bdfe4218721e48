"""`mm35 bench` on the real small model, and the full-size script's writer on a small geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.random_gguf import write_random_gguf
from bench.step import measure
from mm35local.cli.app import run
from mm35local.engine.load_rate import file_bytes
from mm35local.models.geometry import from_shape
from mm35local.models.gguf_header import read_header
from mm35local.models.mixes import MIXES, Shape
from tests.native.test_placing import logits

SMALL = Shape(3, 512, 1024, 4, 2, 128, 2048, 4096)


def test_a_table_and_json(smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--model", str(smollm2_path), "--depths", "0,64", "--streams", "2", "--prompt", "16"]
    words += ["--tokens", "4", "--cpu"]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(rate["depth"], rate["streams"]) for rate in found["rates"]] == [(0, 1), (64, 1), (0, 2)]
    assert all(rate["prefill_tokens_per_second"] > rate["decode_tokens_per_second"] / 2 > 0 for rate in found["rates"])
    assert found["bandwidth"] == found["copy_bandwidth"] > 1e8
    assert 0 < found["load_seconds"] < 60
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "of the memory's rate" in out
    assert f"KV {found['kv']}" in out


@pytest.mark.parametrize(("flag", "text"), [("--depths", "-1"), ("--depths", "a"), ("--streams", "0")])
def test_impossible_numbers(flag: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", flag, text]) == 2
    assert f"{flag} {text}" in capsys.readouterr().err


@pytest.mark.parametrize("quant", MIXES)
def test_random_weights_of_every_quant_load_and_stay_finite(tmp_path: Path, quant: str) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    path = write_random_gguf(folders, SMALL, quant)
    assert file_bytes(path) > sum(each.stat().st_size for each in folders[1].iterdir()) > 0
    found = logits(path)
    assert np.isfinite(found).all()
    assert 0.01 < found.std() < 10


def test_one_folder_gives_one_file_of_the_planned_bytes(tmp_path: Path) -> None:
    header = read_header(write_random_gguf([tmp_path], SMALL, "Q4_K_M"))
    geometry = from_shape("small", SMALL, "Q4_K_M")
    assert geometry is not None
    assert header.tensor_bytes == geometry.num_bytes


def test_a_step_is_told_by_its_parts(pocket_gguf: Path) -> None:
    [path] = pocket_gguf.glob("*-Q8_0.gguf")
    micros = measure(path, 1, 3)
    parts = ("decode", "sampling", "Python", "messages")
    assert set(micros) == {f"{n} {kind}: {part}" for n in (1, 16) for kind in ("greedy", "drawn") for part in parts}
    assert all(len(values) == 3 and min(values) > 0 for values in micros.values())
