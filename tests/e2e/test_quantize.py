"""Checkpoint to answer, as a user types it: the pocket model through `mm35 quantize` and `mm35 serve`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from tests.e2e.serving import mm35, serving
from tests.pocket import PocketConfig, write_pocket

QUANTS = ("Q4_K_M", "Q5_K_M", "Q8_0")


def test_one_command_makes_every_quant_and_it_answers(pocket_checkpoint: Path, tmp_path: Path) -> None:
    wishes = [word for quant in QUANTS for word in ("--to", quant)]
    done = mm35("quantize", str(pocket_checkpoint / "hf"), *wishes, "-o", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert [file["quant"] for file in files] == list(QUANTS)
    assert all(Path(file["path"]).stat().st_size == file["bytes"] for file in files)

    with serving("--model", files[0]["path"], "--ctx", "4096", log=tmp_path / "log") as server:
        whole = server.ask("Hello")
        assert whole.text
        assert server.stream("Hello") == whole


def test_a_missing_shard_is_named_and_nothing_is_left(pocket_checkpoint: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "hf", tmp_path / "out"
    shutil.copytree(pocket_checkpoint / "hf", source)
    shard = sorted(source.glob("*.safetensors"))[1]
    shard.unlink()
    done = mm35("quantize", str(source), "--to", "Q8_0", "-o", str(out))
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 2)
    assert shard.name in lines[0]
    assert not out.exists() or list(out.iterdir()) == []


def test_the_same_command_again_changes_nothing(pocket_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("quantize", str(pocket_checkpoint / "hf"), "--to", "Q8_0", "-o", str(tmp_path))
    assert mm35(*arguments).returncode == 0
    (file,) = tmp_path.glob("*.gguf")
    before = file.stat().st_mtime_ns
    done = mm35(*arguments)
    assert done.returncode == 0
    assert "was there already" in done.stdout
    assert file.stat().st_mtime_ns == before
    file.write_bytes(b"mine")
    assert "--force" in mm35(*arguments).stderr
    assert file.read_bytes() == b"mine"
    assert mm35(*arguments, "--force").returncode == 0
    assert file.stat().st_size > 4


def test_what_is_consumed_without_being_converted_is_told(pocket_checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(pocket_checkpoint / "hf", tmp_path / "hf")
    done = mm35("quantize", str(source), "--to", "Q8_0", "-o", str(tmp_path / "out"), "--consume")
    assert done.returncode == 0, done.stderr
    [warning] = done.stderr.splitlines()
    assert "tensors of the vision tower go with their shards; --mmproj f16 converts them" in warning
    again = mm35("quantize", str(source), "--to", "Q4_K_M", "-o", str(tmp_path / "out"))
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 2)
    assert "it was consumed" in again.stderr
    assert len(list((tmp_path / "out").glob("*.gguf"))) == 1


def test_the_extra_that_would_be_faster_is_named_and_changes_no_byte(tmp_path: Path) -> None:
    """Of a model that is large enough for it; a small one is quantised before anything is compiled."""
    config = PocketConfig(num_layers=4, n_embd=1024, n_ff=4096, num_ranks=300)
    large, _ = write_pocket(tmp_path / "large", config=config)
    small, _ = write_pocket(tmp_path / "small", config=replace(config, num_layers=1, n_ff=1024))
    (tmp_path / "path" / "llvmlite").mkdir(parents=True)
    (tmp_path / "path" / "llvmlite" / "__init__.py").write_text("raise ImportError")
    poor = {"PYTHONPATH": str(tmp_path / "path")}
    arguments = ("--to", "Q4_K_M", "--threads", "1", "-o")
    with_kernels = mm35("quantize", str(large), *arguments, str(tmp_path / "with"))
    planned = mm35("quantize", str(large), *arguments, str(tmp_path / "without"), "--plan", env=poor)
    without = mm35("quantize", str(large), *arguments, str(tmp_path / "without"), env=poor)
    assert (with_kernels.returncode, without.returncode, planned.returncode) == (0, 0, 0)
    [note] = set(without.stderr.splitlines()) - set(with_kernels.stderr.splitlines())
    assert "pip install 'mm35local[fast]'" in note
    assert note in planned.stderr
    [ours], [ggmls] = ((tmp_path / folder).glob("*.gguf") for folder in ("with", "without"))
    assert ours.read_bytes() == ggmls.read_bytes()
    short = mm35("quantize", str(small), *arguments, str(tmp_path / "small-out"), env=poor)
    assert (short.returncode, note in short.stderr) == (0, False)


def test_an_unknown_quant_lists_the_known(pocket_checkpoint: Path, tmp_path: Path) -> None:
    done = mm35("quantize", str(pocket_checkpoint / "hf"), "--to", "Q9", "-o", str(tmp_path))
    assert done.returncode == 2
    assert "Q9" in done.stderr
    assert "Q4_K_M" in done.stderr


def test_a_plan_counts_the_projector_and_writes_nothing(pocket_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("quantize", str(pocket_checkpoint / "hf"), "--to", "Q8_0", "--mmproj", "f16", "-o", str(out))
    planned = json.loads(mm35(*arguments, "--plan", "--json").stdout)
    assert not out.exists()
    done = mm35(*arguments, "--verify", "--json")
    assert done.returncode == 0, done.stderr
    made = {file["path"]: file["bytes"] for file in json.loads(done.stdout)}
    assert {file["path"]: file["bytes"] for file in planned["files"]} == made
    assert len(made) == 2
    assert planned["needed_bytes"] == sum(made.values())
    assert "worst ten" in done.stderr
    assert list(out.glob("*.report.json"))
