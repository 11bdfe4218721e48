"""Types by rule, outputs in several files, and a plan that tells the truth before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mm35local.errors import ConversionError, UsageError
from mm35local.models.gguf_header import read_header
from quantize.convert import Options, convert, plan_conversion
from quantize.estimate import estimate
from quantize.job import Job
from quantize.recipe import FTYPES
from quantize.split import parse_split_size
from tests.quantize.gguf_tensors import read_tensors
from tests.quantize.llama_probe import LlamaProbe

_RULES = ("ffn_down=Q6_K", r"blk\.[01]\.attn_v=Q8_0", "output=F16")
_GGML = {"Q6_K": 14, "Q8_0": 8, "F16": 1}


def test_rules_give_llama_cpps_types_and_bytes(
    llama: LlamaProbe, pocket_checkpoint: Path, pocket_f32: Path, tmp_path: Path
) -> None:
    ours = convert(pocket_checkpoint / "hf", tmp_path, ["Q4_K_M"], Options(_RULES)).files[0].path
    theirs = tmp_path / "theirs.gguf"
    overrides = [(pattern, _GGML[kind]) for pattern, _, kind in (rule.rpartition("=") for rule in _RULES)]
    assert llama.ask(
        "quantize", source=str(pocket_f32), target=str(theirs), ftype=FTYPES["Q4_K_M"], overrides=overrides
    ) == 0  # fmt: skip
    found = read_tensors(ours)
    assert found == read_tensors(theirs)
    assert {found[f"blk.{layer}.attn_v.weight"].type_name for layer in (0, 1)} == {"Q8_0"}


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("ffn_down", "expected REGEX=TYPE"),
        ("ffn_down=Q9", "expected REGEX=TYPE"),
        ("ffn(=Q8_0", "no regular expression"),
        ("ffn_dwn=Q8_0", "no tensor matches"),
        ("ffn_down=IQ1_S", "needs an importance matrix"),
    ],
)
def test_rules_that_cannot_hold(pocket_checkpoint: Path, tmp_path: Path, rule: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        convert(pocket_checkpoint / "hf", tmp_path / "out", ["Q4_K_M"], Options((rule,)))
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_several_files_hold_the_same_model(
    llama: LlamaProbe, pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    result = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], Options(split_max_bytes=parse_split_size("5M")))
    paths = [file.path for file in result.files]
    stem = "Mistral-Medium-3.5-pocket-Q8_0"
    assert [path.name for path in paths] == [f"{stem}-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    together = {name: tensor for path in paths for name, tensor in read_tensors(path).items()}
    assert together == read_tensors(pocket_gguf / f"{stem}.gguf")
    keys = [read_header(path).metadata for path in paths]
    assert [key["split.no"] for key in keys] == [0, 1, 2]
    assert {(key["split.count"], key["split.tensors.count"]) for key in keys} == {(3, len(together))}
    prompt = [1, 3, 1500, 4]
    assert llama.ask("logits", path=str(paths[0]), token_ids=prompt) == llama.ask(
        "logits", path=str(pocket_gguf / f"{stem}.gguf"), token_ids=prompt
    )


@pytest.mark.parametrize("text", ["", "5", "0G", "-1G", "5K", "1.5G", "5 G", "9999999999G"])
def test_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read the size"):
        parse_split_size(text)


def test_the_plan_tells_what_is_then_taken(pocket_checkpoint: Path, tmp_path: Path) -> None:
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path / "a" / "b", ["Q4_K_M", "Q8_0"])
    job = Job(plan.decoder, plan.outputs)
    needs = estimate([job], tmp_path / "a" / "b", num_threads=2)
    assert list(tmp_path.iterdir()) == []
    assert [need.num_bytes for need in needs.disk] == [plan.num_bytes]
    assert 0 < needs.seconds < 600
    assert 0 < needs.peak_bytes < 1 << 30
    files = convert(pocket_checkpoint / "hf", tmp_path / "a" / "b", ["Q4_K_M", "Q8_0"]).files
    assert sum(file.num_bytes for file in files) == plan.num_bytes
    assert estimate([job], tmp_path / "a" / "b", num_threads=2).disk[0].num_bytes == 0


def test_what_cannot_fit_is_refused(pocket_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free._replace(free=plan.num_bytes // 2))
    with pytest.raises(ConversionError, match="GiB of disk") as caught:
        convert(pocket_checkpoint / "hf", tmp_path / "out", ["Q8_0"])
    assert "--consume" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []
