"""Verification sees every byte that changed, measures the distance from the source, and runs the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm35local.errors import ConversionError
from quantize.convert import Options, convert, plan_conversion
from quantize.report import report_path
from quantize.verify import verify


def test_a_good_output_is_proven(pocket_checkpoint: Path, tmp_path: Path) -> None:
    """Errors are those of the types: nothing for F32 norms, 0.3-0.8 % for Q8_0, 5-10 % for Q4_K."""
    options = Options(split_max_bytes=3_000_000)
    convert(pocket_checkpoint / "hf", tmp_path, ["Q4_K_M", "Q8_0"], options)
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path, ["Q4_K_M", "Q8_0"], options)
    for output, (low, high) in zip(plan.outputs, [(0.01, 0.12), (0.002, 0.01)], strict=True):
        steps: list[tuple[int, int]] = []
        report = verify(plan.decoder, output, on_progress=lambda *step, steps=steps: steps.append(step))
        errors = {tensor.name: distance for distance, tensor in report.worst(10**6)}
        assert len(errors) == len(report.tensors)
        assert errors["blk.1.attn_norm.weight"] == 0
        assert low < errors["blk.1.ffn_up.weight"] < high
        assert low < errors["blk.1.attn_q.weight"] < high
        assert report.worst(1)[0][0] == max(errors.values())
        assert len(report.generated) == 8
        assert steps[-1][0] == steps[-1][1]
        assert len(json.loads(report_path(output).read_text())["tensors"]) == len(errors)


def test_one_turned_bit_is_seen(pocket_checkpoint: Path, tmp_path: Path) -> None:
    [file] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"]).files
    raw = bytearray(file.path.read_bytes())
    raw[-2000] ^= 1
    file.path.write_bytes(raw)
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])
    with pytest.raises(ConversionError, match=r"tensor blk\.3\..*SHA-256"):
        verify(plan.decoder, plan.outputs[0])


def test_nothing_to_verify(pocket_checkpoint: Path, tmp_path: Path) -> None:
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])
    with pytest.raises(ConversionError, match="not finished"):
        verify(plan.decoder, plan.outputs[0])
