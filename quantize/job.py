"""What is made of a checkpoint in one go: the tensors that are read, and the outputs that need them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quantize.decoder import Decoder
from quantize.kernels.choose import Worth, worth
from quantize.output import PlannedOutput
from quantize.scales import FP8


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    decoder: Decoder
    outputs: tuple[PlannedOutput, ...]
    """All in one folder."""

    def without(self, finished: Iterable[PlannedOutput]) -> Job:
        done = set(finished)
        return Job(self.decoder, tuple(output for output in self.outputs if output not in done))

    def on_shard(self, shard: Path) -> list[int]:
        """Numbers of the tensors that lie in it."""
        return [index for index, tensor in enumerate(self.decoder.tensors) if tensor.stored.path == shard]

    def missing(self, is_forced: bool = False) -> Iterator[tuple[PlannedOutput, int]]:
        """Each tensor, by number, of each output in which it is not durable; `is_forced` makes whole outputs anew."""
        for output in self.outputs:
            durable = {} if is_forced and output.finished() else output.durable()
            for index, name in enumerate(output.tensor_names):
                if name not in durable:
                    yield output, index


def worth_of(decoder: Decoder, lacking: Iterable[tuple[PlannedOutput, int]], num_threads: int) -> Worth:
    """For what of the conversion of these tensors of outputs machine code is compiled; others are quantised by ggml."""
    pairs = list(lacking)
    tensors = decoder.tensors
    elements: Counter[int] = Counter()
    for index, kind in {(index, output.types[index]) for output, index in pairs if output.importance(index) is None}:
        elements[kind] += tensors[index].num_rows * tensors[index].row_length
    coded = {index for _, index in pairs if tensors[index].stored.dtype == FP8}
    return worth(elements, sum(tensors[index].stored.num_bytes for index in coded), num_threads)


def shards_of(jobs: Iterable[Job]) -> list[Path]:
    """In the order in which they are read."""
    return sorted({tensor.stored.path for job in jobs for tensor in job.decoder.tensors})
