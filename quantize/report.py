"""NAME.report.json beside an output: how far each tensor is from the source, and what the file generated.

A conversion that consumes its source writes the distances shard by shard, before it deletes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gguf import GGMLQuantizationType
from pydantic import BaseModel, Field, ValidationError

from mm35local.errors import CheckpointError
from quantize.durable import write_aside
from quantize.json_file import read_object
from quantize.output import PlannedOutput


@dataclass(frozen=True, slots=True)
class TensorReport:
    name: str
    type_name: str
    relative_rmse: float | None
    """sqrt(sum (w' - w)^2 / sum w^2) over the tensor; 0 where it is stored exactly, None where nobody measured it
    before its shard was consumed."""


@dataclass(frozen=True, slots=True)
class Report:
    conversion: str
    """Fingerprint: the report speaks of what this conversion makes."""
    quant: str
    files: tuple[str, ...]
    tensors: tuple[TensorReport, ...]
    generated: tuple[int, ...]
    """Token ids that llama.cpp gave after a short prompt; none before the file was tried."""

    def worst(self, num: int = 10) -> list[tuple[float, TensorReport]]:
        """(relative RMSE, tensor), largest first."""
        known = [(tensor.relative_rmse, tensor) for tensor in self.tensors if tensor.relative_rmse is not None]
        return sorted(known, key=lambda pair: -pair[0])[:num]

    @property
    def num_unmeasured(self) -> int:
        return sum(tensor.relative_rmse is None for tensor in self.tensors)


class _Tensor(BaseModel):
    name: str
    relative_rmse: float | None = Field(ge=0, allow_inf_nan=False)


class _Form(BaseModel):
    conversion: str
    tensors: tuple[_Tensor, ...]


def make_report(output: PlannedOutput, distances: Mapping[str, float], generated: Sequence[int] = ()) -> Report:
    tensors = tuple(
        TensorReport(name, GGMLQuantizationType(kind).name, distances.get(name))
        for name, kind in zip(output.tensor_names, output.types, strict=True)
    )
    names = tuple(file.path.name for file in output.files)
    return Report(output.fingerprint, output.quant, names, tensors, tuple(generated))


def report_path(output: PlannedOutput) -> Path:
    return output.stem.with_name(output.stem.name + ".report.json")


def write_report(output: PlannedOutput, report: Report) -> None:
    write_aside(report_path(output), json.dumps(asdict(report), indent=2).encode() + b"\n")


def read_distances(output: PlannedOutput) -> dict[str, float]:
    """Relative RMSE by tensor, as far as an earlier run of this same conversion measured it."""
    try:
        form = _Form.model_validate(read_object(report_path(output)))
    except (CheckpointError, ValidationError):
        return {}
    if form.conversion != output.fingerprint:
        return {}
    return {tensor.name: tensor.relative_rmse for tensor in form.tensors if tensor.relative_rmse is not None}
