"""`mm35 plan` as a person and as a program runs it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from mm35local.cli.app import run
from mm35local.models.memory import image_bytes
from quantize.vision import write_mmproj


def test_the_table_at_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["plan", "mistral-medium-3.5", "--gpus", "h100"]) == 0
    out = capsys.readouterr().out
    assert "mm35 serve --model mistral-medium-3.5:Q4_K_M --ctx 52992 --kv q8_0" in out
    assert "weights 68.9 + KV 9.5 + buffers 1.3 GiB of 79.6" in " ".join(out.split())
    assert "Estimate, not a measurement" in " ".join(out.split())
    assert "On such a machine:" in out
    table = [line for line in out.splitlines() if "q8_0" in line or "f16" in line]
    assert len(table) >= 12
    assert all(len(line) <= 80 for line in out.splitlines() if "mm35 serve" not in line)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "mistral-medium-3.5", "--gpus", "4x24GiB", "--ctx", "65536", "--ram", "8", "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"model", "fit", "machine", "chosen", "reason", "command", "mmproj", "vision_bytes", "options"}
    chosen = found["options"][found["chosen"]]
    assert (chosen["quant"], chosen["kv"], chosen["split"], chosen["n_ctx"]) == ("Q4_K_M", "f16", "tensor", 65536)
    assert [device["tensor_split"] for device in chosen["devices"]] == [0.25] * 4
    assert sum(device["kv_bytes"] for device in chosen["devices"]) == 65536 * 360448 == chosen["kv_bytes"]
    assert len(found["options"]) == 6 * 4
    documented = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
    names = set(found) | set(chosen) | set(chosen["devices"][0]) | set(chosen["estimate"]) | {"fits", "needed_bytes"}
    assert [name for name in sorted(names) if f"`{name}`" not in documented] == []


def test_a_file_and_a_model_that_is_here(capsys: pytest.CaptureFixture[str], smollm2_path: Path) -> None:
    for model in (str(smollm2_path), "smollm2-135m"):
        assert run(["plan", model, "--json", "--ram", "4"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["options"][found["chosen"]]["n_ctx"] == 8192
        meant = str(smollm2_path) if model == str(smollm2_path) else "smollm2-135m:Q4_1"
        assert found["command"].startswith(f"mm35 serve --model {meant} --ctx 8192 --kv f16")


def test_room_is_kept_for_the_vision_part_beside_the_model(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copy(pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf", tmp_path))
    words = ["plan", str(model), "--gpus", "24GiB", "--json"]
    assert run(words) == 0
    blind = json.loads(capsys.readouterr().out)
    mmproj = write_mmproj(pocket_checkpoint / "hf", tmp_path).path
    assert run(words) == 0
    seeing = json.loads(capsys.readouterr().out)
    assert (blind["mmproj"], seeing["mmproj"]) == (None, str(mmproj))
    found = [each["options"][each["chosen"]]["devices"][0]["other_bytes"] for each in (blind, seeing)]
    needed = mmproj.stat().st_size + image_bytes(110**2, 64, 256)
    assert found[1] - found[0] == seeing["vision_bytes"] == needed
    assert run([*words[:2], "--ram", "8", "--json"]) == 0
    in_ram = json.loads(capsys.readouterr().out)
    mmproj.unlink()
    assert run([*words[:2], "--ram", "8", "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    ram = [each["options"][each["chosen"]]["ram_bytes"] for each in (in_ram, without)]
    assert (in_ram["options"][0]["devices"], ram[0] - ram[1]) == ([], needed)


def test_the_vision_part_of_a_model_that_is_not_here(
    pocket_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmproj = write_mmproj(pocket_checkpoint / "hf", tmp_path).path
    words = ["plan", "mistral-medium-3.5", "--gpus", "h100", "--mmproj"]
    assert run([*words, str(mmproj)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"vision part, {mmproj.name}: 0.0 GiB and 0.0 GiB for the largest image" in told
    mmproj.write_bytes(b"GGUF")
    assert run([*words, str(mmproj)]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mistral-medium-3.5", "--gpus", "0GiB"], "a card of 0 bytes"),
        (["mistral-medium-3.5", "--gpus", "1000000x24GiB"], "1000000 GPUs"),
        (["mistral-medium-3.5", "--gpus", "warp-9"], "unknown card"),
        (["mistral-medium-3.5", "--gpus", "h100", "--ctx", "262145"], "1 to 262144"),
        (["mistral-medium-3.5", "--gpus", "h100", "--kv", "q3_0"], "unknown KV type"),
        (["mistral-medium-3.5", "--gpus", "h100", "--split", "tensor"], "at least 2 GPUs"),
        (["mistral-medium-3.5", "--gpus", "h100", "--split", "diagonal"], "no such way"),
        (["mistral-medium-3.5", "--gpus", "h100", "--fit", "beauty"], "no such goal"),
    ],
)
def test_bad_input_is_a_usage_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "hint: " in err


def test_what_does_not_fit_says_the_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "mistral-medium-3.5", "--gpus", "24GiB", "--ram", "1"]) == 1
    assert "hint: weights 62." in capsys.readouterr().err


def test_plot_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert run(["plan", "mistral-medium-3.5", "--gpus", "h100", "--plot", str(tmp_path / "p.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
