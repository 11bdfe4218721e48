"""Everything that one command asks for, planned together: the vision part and every quant of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantize.checkpoint import open_checkpoint
from quantize.convert import Options, plan_conversion
from quantize.job import Job, worth_of
from quantize.kernels.choose import notes
from quantize.make import num_cpus
from quantize.output import PlannedOutput
from quantize.vision import plan_mmproj


@dataclass(frozen=True, slots=True)
class Plan:
    vision: Job | None
    text: Job | None
    warnings: tuple[str, ...]
    num_skipped: int
    """Tensors of the vision tower that nothing is made of."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What is small first."""
        return tuple(job for job in (self.vision, self.text) if job is not None)

    @property
    def outputs(self) -> tuple[PlannedOutput, ...]:
        return tuple(output for job in self.jobs for output in job.outputs)

    def notes(self, num_threads: int, *, is_forced: bool, is_tried: bool) -> tuple[str, ...]:
        """What the user should know of how quickly it will go; `is_tried` compiles what there is to compile."""
        worths = [worth_of(job.decoder, job.missing(is_forced), num_threads or num_cpus()) for job in self.jobs]
        return notes(frozenset().union(*(worth.types for worth in worths)), is_tried=is_tried)


def plan_everything(source: Path, out_dir: Path, quants: Sequence[str], mmproj: str | None, options: Options) -> Plan:
    """Reads headers and small files, writes nothing. No quants are the whole wish only beside an `mmproj` type.

    Raises UsageError, CheckpointError or ConversionError.
    """
    vision = plan_mmproj(open_checkpoint(source), out_dir, mmproj) if mmproj else None
    if vision and not quants:
        return Plan(vision, None, (), 0)
    text = plan_conversion(source, out_dir, quants, options)
    return Plan(vision, Job(text.decoder, text.outputs), text.warnings, 0 if vision else text.decoder.num_skipped)
