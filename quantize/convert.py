"""From a checkpoint folder to GGUF files: plan everything, refuse what cannot work, then stream once.

Invariant: nothing is written before every header, name, shape and config of the source was checked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import GIB, CheckpointError, ConversionError, UsageError
from mm35local.native import quant
from quantize.checkpoint import Layout, open_checkpoint
from quantize.decoder import Decoder, collect_decoder
from quantize.gguf_file import GgufFile, GgufLayout, TensorSpec, lay_out, make_folder
from quantize.hyperparameters import Hyperparameters, read_hyperparameters
from quantize.metadata import Metadata, common_metadata, quant_metadata, read_chat_template
from quantize.model_card import read_model_card
from quantize.recipe import ARCHITECTURE, assign_types, parse_quants
from quantize.rows import Output, stream_rows
from quantize.vocabulary import read_vocabulary


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    quant: str
    path: Path
    types: tuple[int, ...]
    """ggml type of each tensor of the decoder."""
    layout: GgufLayout

    @property
    def num_bytes(self) -> int:
        return self.layout.num_bytes


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    source: Path
    source_layout: Layout
    name: str
    decoder: Decoder
    outputs: tuple[PlannedOutput, ...]
    warnings: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Of all outputs together."""
        return sum(output.num_bytes for output in self.outputs)


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    quant: str
    path: Path
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ConvertResult:
    files: tuple[ConvertedFile, ...]
    num_tensors: int
    source_bytes: int
    num_skipped: int
    """Tensors of the vision tower and the projector: they belong into an mmproj file, not into these."""
    skipped_bytes: int
    warnings: tuple[str, ...]


def plan_conversion(source: Path, out_dir: Path, quants: Sequence[str]) -> ConversionPlan:
    """Check the whole source and lay out every output; reads headers and small files, writes nothing.

    Raises UsageError (unknown quant) or CheckpointError.
    """
    names = parse_quants(quants)
    checkpoint = open_checkpoint(source)
    params, warnings = read_hyperparameters(checkpoint)
    decoder = collect_decoder(checkpoint, params)
    vocabulary = read_vocabulary(source / "tekken.json")
    if len(vocabulary.tokens) != params.n_vocab:
        raise CheckpointError(
            str(source / "tekken.json"), f"{len(vocabulary.tokens)} tokens, the config says {params.n_vocab}"
        )
    template = read_chat_template(source)
    if template is None:
        warnings += ("no chat_template.jinja beside the weights: the GGUF gets no chat template",)
    card = read_model_card(source)
    metadata = common_metadata(params, vocabulary, card, template)
    outputs = tuple(
        _plan_output(name, out_dir / f"{card.slug}-{name}.gguf", params, decoder, metadata) for name in names
    )
    return ConversionPlan(source, checkpoint.layout, card.name, decoder, outputs, warnings)


def _plan_output(name: str, path: Path, params: Hyperparameters, decoder: Decoder, metadata: Metadata) -> PlannedOutput:
    types = assign_types(params, decoder, name)
    specs = [
        TensorSpec(tensor.gguf_name, tensor.shape, kind, quant.row_bytes(kind, tensor.row_length))
        for tensor, kind in zip(decoder.tensors, types, strict=True)
    ]
    return PlannedOutput(name, path, tuple(types), lay_out(ARCHITECTURE, metadata | quant_metadata(name), specs))


def convert(
    source: Path,
    out_dir: Path,
    quants: Sequence[str],
    *,
    force: bool = False,
    num_threads: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> ConvertResult:
    """Write one GGUF per quant into `out_dir` (made if absent), reading the source once for all of them.

    `num_threads` 0 takes every core this process may use. `on_progress(done_bytes, total_bytes)` counts source bytes.
    Raises CheckpointError, ConversionError or UsageError, and then leaves no half-written file behind.
    """
    plan = plan_conversion(source, out_dir, quants)
    for warning in plan.warnings:
        if on_warning:
            on_warning(warning)
    check_existing([output.path for output in plan.outputs], force)
    make_folder(out_dir)
    check_space(out_dir, plan.num_bytes)
    _run(plan, num_threads or num_cpus(), on_progress or (lambda done, total: None))
    return ConvertResult(
        tuple(ConvertedFile(output.quant, output.path, output.num_bytes) for output in plan.outputs),
        len(plan.decoder.tensors),
        plan.decoder.source_bytes,
        plan.decoder.num_skipped,
        plan.decoder.skipped_bytes,
        plan.warnings,
    )


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_existing(paths: Sequence[Path], force: bool) -> None:
    """Raises UsageError if one of `paths` is there and may not be replaced."""
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise UsageError(f"{existing[0]} exists already", "add --force to replace it, or choose another folder with -o")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises ConversionError if the file system of `folder` has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise ConversionError(
            f"the outputs need {needed_bytes / GIB:.1f} GiB, {folder} has {free_bytes / GIB:.1f} GiB free",
            "choose another folder with -o, or fewer or smaller quants",
        )


def counter(total_bytes: int, on_progress: Callable[[int, int], None]) -> Callable[[int], None]:
    """Adds up what it is called with and tells `on_progress` the sum so far."""
    done_bytes = 0

    def on_bytes(num_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += num_bytes
        on_progress(done_bytes, total_bytes)

    return on_bytes


def _run(plan: ConversionPlan, num_threads: int, on_progress: Callable[[int, int], None]) -> None:
    count = counter(plan.decoder.source_bytes, on_progress)
    with ExitStack() as stack:
        files = [stack.enter_context(GgufFile(output.path, output.layout)) for output in plan.outputs]
        outputs = [Output(file, output.types) for file, output in zip(files, plan.outputs, strict=True)]
        stream_rows(plan.decoder, outputs, num_threads, count)
        for file in files:
            file.commit()
