"""What `make oracle` found: a table on the terminal, docs/oracle.md, bench/results/oracle.json, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.results_file import RESULTS, machine

_MAX_KL = 1e-3
"""Nats; F16 keys and values give some 1e-6, the YaRN mistake 0.1 and more."""
_COLUMNS = ("what", "positions", "max |Δlogit|", "mean KL", "max KL")
_DOCUMENT = Path(__file__).parents[1] / "docs" / "oracle.md"


@dataclass(frozen=True, slots=True)
class Row:
    """How far our logits are from the reference's over some positions; KL(reference || ours) in nats."""

    what: str
    where: str
    max_delta: float
    mean_kl: float
    max_kl: float

    def cells(self) -> tuple[str, ...]:
        return (self.what, self.where, f"{self.max_delta:.4f}", f"{self.mean_kl:.1e}", f"{self.max_kl:.1e}")


@dataclass(frozen=True, slots=True)
class Findings:
    close: Sequence[Row]
    wrong: Sequence[Row]
    """With the YaRN mistake: if these were close, the oracle would be blind."""
    byte_identical: Mapping[str, tuple[int, int]]
    """Per quant (tensors that equal llama.cpp's own in type, shape and bytes, tensors in all)."""

    @property
    def is_right(self) -> bool:
        return (
            all(row.max_kl < _MAX_KL for row in self.close)
            and all(row.max_kl > _MAX_KL for row in self.wrong)
            and all(equal == total for equal, total in self.byte_identical.values())
        )


def tell(findings: Findings) -> None:
    """Print them and write both files."""
    table = Table(box=None)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=True)
    rows = (*findings.close, *findings.wrong)
    for row in rows:
        table.add_row(*row.cells())
    console = Console()
    console.print(table)
    for quant, (equal, total) in findings.byte_identical.items():
        console.print(f"{quant:7} {equal} of {total} tensors byte-identical to llama_model_quantize", highlight=False)
    document = {
        "name": "oracle",
        "machine": machine(),
        "rows": [astuple(row) for row in rows],
        "byte_identical": findings.byte_identical,
    }
    (RESULTS / "oracle.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    _DOCUMENT.write_text(_markdown(findings))


def _markdown(findings: Findings) -> str:
    lines = [
        "# How exact the conversion is",
        "",
        "Written by `make oracle`. Logits of the pocket checkpoint: transformers' `Mistral3ForConditionalGeneration`",
        "in float32 from the safetensors, against our native room from the GGUF (keys and values in F16). KL in nats.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row.cells())} |" for row in (*findings.close, *findings.wrong)),
        "",
        "The last rows show that the measurement sees the YaRN factor: the same file with the key's known wrong value.",
        "",
        "Tensors that equal `llama_model_quantize`'s, run on the F32 GGUF, in type, shape and bytes:",
        "",
        "| quant | equal | of |",
        "|---|---|---|",
        *(f"| {quant} | {equal} | {total} |" for quant, (equal, total) in findings.byte_identical.items()),
    ]
    return "\n".join(lines) + "\n"
