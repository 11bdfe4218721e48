"""From a checkpoint folder to GGUF files: plan everything, refuse what cannot work, then stream once.

Invariant: nothing is written before every header, name, shape and config of the source was checked; what was written
and is durable is never computed again, whatever ended the process.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import GIB, CheckpointError, ConversionError, UsageError
from mm35local.native import quant
from quantize.booker import Booker
from quantize.checkpoint import Layout, open_checkpoint
from quantize.decoder import Decoder, collect_decoder
from quantize.fingerprint import fingerprint
from quantize.gguf_file import TensorSpec, lay_out
from quantize.hyperparameters import Hyperparameters, read_hyperparameters
from quantize.manifest import FileEntry
from quantize.metadata import Metadata, common_metadata, quant_metadata, read_chat_template
from quantize.model_card import read_model_card
from quantize.output import Output, PlannedFile, PlannedOutput
from quantize.recipe import ARCHITECTURE, assign_types, parse_quants
from quantize.rows import stream_rows
from quantize.vocabulary import read_vocabulary

_MAX_ATTEMPTS = 2
"""A tensor that was not read back as written is converted once more; twice means that the machine is at fault."""


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
    sha256: str
    is_kept: bool
    """It was there already, made by this same conversion."""


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
    layout = lay_out(ARCHITECTURE, metadata | quant_metadata(name), specs)
    return PlannedOutput(
        name,
        path.with_suffix(""),
        (PlannedFile(path, layout, 0),),
        tuple(spec.name for spec in specs),
        tuple(types),
        fingerprint(decoder, [layout.header]),
    )


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

    What an earlier run of the same conversion left is gone on with; what it finished is kept as it is. `num_threads` 0
    takes every core this process may use. `on_progress(done_bytes, total_bytes)` counts source bytes.
    Raises CheckpointError, ConversionError or UsageError; whatever is durable by then stays for the next run.
    """
    plan = plan_conversion(source, out_dir, quants)
    for warning in plan.warnings:
        if on_warning:
            on_warning(warning)
    finished = {} if force else {output: manifest.files for output in plan.outputs if (manifest := output.finished())}
    missing = [output for output in plan.outputs if output not in finished]
    if not force:
        _check_existing(missing)
    made = _make(plan, missing, num_threads or _num_cpus(), on_progress or (lambda done, total: None))
    entries = finished | made
    return ConvertResult(
        tuple(
            ConvertedFile(output.quant, file.path, entry.bytes, entry.sha256, output in finished)
            for output in plan.outputs
            for file, entry in zip(output.files, entries[output], strict=True)
        ),
        len(plan.decoder.tensors),
        plan.decoder.source_bytes,
        plan.decoder.num_skipped,
        plan.decoder.skipped_bytes,
        plan.warnings,
    )


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_existing(outputs: Sequence[PlannedOutput]) -> None:
    existing = [path for output in outputs for path in output.existing()]
    if existing:
        raise UsageError(
            f"{existing[0]} exists already, from another conversion",
            "add --force to replace it, or choose another folder with -o",
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConversionError(
            f"cannot make the folder {folder}: {error.strerror or error}", "choose another with -o"
        ) from error


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises ConversionError if the file system of `folder` has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise ConversionError(
            f"the outputs need {needed_bytes / GIB:.1f} GiB, {folder} has {free_bytes / GIB:.1f} GiB free",
            "choose another folder with -o, or fewer or smaller quants",
        )


def _make(
    plan: ConversionPlan, missing: Sequence[PlannedOutput], num_threads: int, on_progress: Callable[[int, int], None]
) -> dict[PlannedOutput, tuple[FileEntry, ...]]:
    if not missing:
        return {}
    _make_folder(missing[0].stem.parent)
    with ExitStack() as stack:
        outputs = [stack.enter_context(Output(output)) for output in missing]
        check_space(missing[0].stem.parent, sum(output.missing_bytes for output in outputs))
        for _ in range(_MAX_ATTEMPTS):
            _stream(plan.decoder, outputs, num_threads, on_progress)
            with ThreadPoolExecutor(num_threads, "check") as pool:
                checked = list(pool.map(Output.check, outputs))
            entries = [files for files in checked if files is not None]
            if len(entries) == len(outputs):
                break
        else:
            raise ConversionError(
                f"{missing[0].stem.parent} does not give back what was written to it", "check the disk and the memory"
            )
        for output, files in zip(outputs, entries, strict=True):
            output.publish(files)
        return dict(zip(missing, entries, strict=True))


def _stream(
    decoder: Decoder, outputs: Sequence[Output], num_threads: int, on_progress: Callable[[int, int], None]
) -> None:
    total_bytes = decoder.source_bytes
    done_bytes = sum(
        tensor.stored.num_bytes
        for index, tensor in enumerate(decoder.tensors)
        if not any(output.needs(index) for output in outputs)
    )

    def on_bytes(num_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += num_bytes
        on_progress(done_bytes, total_bytes)

    with Booker(outputs) as booker:
        stream_rows(decoder, outputs, num_threads, on_bytes, booker.add)
