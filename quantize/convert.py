"""From a checkpoint folder to GGUF files: plan everything, refuse what cannot work, then stream once.

Invariant: nothing is written before every header, name, shape and config of the source was checked; what was written
and is durable is never computed again, whatever ended the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import CheckpointError
from mm35local.native import quant
from quantize.chat_template import chat_template
from quantize.checkpoint import Layout, open_checkpoint
from quantize.decoder import Decoder, collect_decoder
from quantize.fingerprint import fingerprint
from quantize.gguf_file import TensorSpec
from quantize.hyperparameters import read_hyperparameters
from quantize.imatrix import Imatrix, read_imatrix
from quantize.job import Job
from quantize.make import ConvertedFile, make
from quantize.metadata import common_metadata, quant_metadata
from quantize.model_card import read_model_card
from quantize.output import PlannedFile, PlannedOutput
from quantize.recipe import ARCHITECTURE, assign_types, parse_quants, parse_tensor_rules
from quantize.split import plan_files
from quantize.vocabulary import read_vocabulary


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
class ConvertResult:
    files: tuple[ConvertedFile, ...]
    num_tensors: int
    source_bytes: int
    num_skipped: int
    """Tensors of the vision tower and the projector: they belong into an mmproj file, not into these."""
    skipped_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What one may wish beyond the quants."""

    tensor_types: tuple[str, ...] = ()
    """`regex=TYPE` each; the first that matches a tensor decides."""
    imatrix: Path | None = None
    split_max_bytes: int | None = None


def plan_conversion(
    source: Path,
    out_dir: Path,
    quants: Sequence[str],
    options: Options = Options(),
) -> ConversionPlan:
    """Check the whole source and lay out every output; reads headers and small files, writes nothing.

    Raises UsageError (unknown quant) or CheckpointError.
    """
    names, rules = parse_quants(quants), parse_tensor_rules(options.tensor_types)
    checkpoint = open_checkpoint(source)
    params, warnings = read_hyperparameters(checkpoint)
    decoder = collect_decoder(checkpoint, params)
    vocabulary = read_vocabulary(source / "tekken.json")
    if len(vocabulary.tokens) != params.n_vocab:
        raise CheckpointError(
            str(source / "tekken.json"), f"{len(vocabulary.tokens)} tokens, the config says {params.n_vocab}"
        )
    template, doubts = chat_template(source)
    warnings += doubts
    card = read_model_card(source)
    metadata = common_metadata(params, vocabulary, card, template)
    imatrix = None
    if options.imatrix is not None:
        imatrix, doubts = read_imatrix(options.imatrix, decoder)
        metadata |= {"quantize.imatrix.file": imatrix.file, "quantize.imatrix.entries_count": len(imatrix.columns)}
        warnings += doubts
    outputs = []
    for name in names:
        types = assign_types(params, decoder, name, rules, imatrix)
        specs = [
            TensorSpec(tensor.gguf_name, tensor.shape, kind, quant.row_bytes(kind, tensor.row_length))
            for tensor, kind in zip(decoder.tensors, types, strict=True)
        ]
        stem = out_dir / f"{card.slug}-{name}"
        keys = metadata | quant_metadata(name, options.tensor_types, imatrix)
        files = plan_files(ARCHITECTURE, stem, keys, specs, options.split_max_bytes)
        outputs.append(_output(name, stem, files, decoder, types, imatrix))
    return ConversionPlan(source, checkpoint.layout, card.name, decoder, tuple(outputs), warnings)


def _output(
    name: str,
    stem: Path,
    files: tuple[PlannedFile, ...],
    decoder: Decoder,
    types: Sequence[int],
    imatrix: Imatrix | None,
) -> PlannedOutput:
    recipe = [file.layout.header for file in files] + ([imatrix.sha256.encode()] if imatrix else [])
    names = tuple(tensor.gguf_name for tensor in decoder.tensors)
    return PlannedOutput(name, stem, files, names, tuple(types), fingerprint(decoder, recipe), imatrix)


def convert(
    source: Path,
    out_dir: Path,
    quants: Sequence[str],
    options: Options = Options(),
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
    plan = plan_conversion(source, out_dir, quants, options)
    for warning in plan.warnings:
        if on_warning:
            on_warning(warning)
    job = Job(plan.decoder, plan.outputs)
    files = make([job], force=force, num_threads=num_threads, on_progress=on_progress)
    return ConvertResult(
        files,
        len(plan.decoder.tensors),
        plan.decoder.source_bytes,
        plan.decoder.num_skipped,
        plan.decoder.skipped_bytes,
        plan.warnings,
    )
