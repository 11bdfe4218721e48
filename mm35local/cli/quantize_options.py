"""The options of `mm35 quantize`, declared apart so that the command reads as what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="Folder with the weights, HF or native layout, or ORG/NAME on the hub."),
]
To = Annotated[
    list[str] | None, typer.Option("--to", metavar="QUANT", help="Q4_K_M, Q5_K_M, Q8_0, ...; may be repeated.")
]
Mmproj = Annotated[
    str | None, typer.Option("--mmproj", metavar="TYPE", help="Also the vision part, for images: f16, q8_0 or bf16.")
]
TensorType = Annotated[
    list[str] | None,
    typer.Option("--tensor-type", metavar="REGEX=TYPE", help="Another type for some tensors; may be repeated."),
]
Imatrix = Annotated[
    Path | None, typer.Option("--imatrix", metavar="FILE", help="Importance matrix from llama-imatrix.")
]
SplitMaxSize = Annotated[
    str | None,
    typer.Option("--split-max-size", metavar="SIZE", help="Several files of at most e.g. 40G of tensors each."),
]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Only tell what it takes: bytes, disk, memory, time.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Then read all again: hashes, distance from the source, a trial run.")
]
Consume = Annotated[
    bool,
    typer.Option("--consume", help="Delete each file of CHECKPOINT once all outputs have it; needs less disk."),
]
Latest = Annotated[
    bool,
    typer.Option(
        "--latest", help="Of ORG/NAME: leave a revision that was consumed in part, take what the hub has now."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Output folder; default: where mm35 looks for models."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
