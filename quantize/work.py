"""The outputs of one job while they are open: streamed, read back, given their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

from mm35local.errors import ConversionError
from quantize.booker import Booker
from quantize.job import Job, worth_of
from quantize.manifest import FileEntry
from quantize.output import Output, PlannedOutput
from quantize.rows import stream_rows

_Result = TypeVar("_Result")
OnProgress = Callable[[int, int], None]
"""Called with source bytes done and in all."""
_MAX_ATTEMPTS = 2
"""A tensor that was not read back as written is converted once more; twice means that the machine is at fault."""


class Work:
    def __init__(self, job: Job, outputs: Sequence[Output], num_threads: int) -> None:
        self._job = job
        self._outputs = outputs
        self._num_threads = num_threads
        numbers = range(len(job.decoder.tensors))
        lacking = ((output.plan, index) for output in outputs for index in numbers if output.needs(index))
        self._worth = worth_of(job.decoder, lacking, num_threads)

    @property
    def source_bytes(self) -> int:
        return self._job.decoder.source_bytes

    @property
    def done_bytes(self) -> int:
        """Of the source, which no output needs any more."""
        return sum(
            tensor.stored.num_bytes
            for index, tensor in enumerate(self._job.decoder.tensors)
            if not any(output.needs(index) for output in self._outputs)
        )

    @property
    def missing_bytes(self) -> int:
        """Of disk, until every output is whole."""
        return sum(output.missing_bytes for output in self._outputs)

    def needs(self, shard: Path) -> bool:
        return any(output.needs(index) for index in self._job.on_shard(shard) for output in self._outputs)

    def complete(self, shard: Path, on_bytes: Callable[[int], None]) -> None:
        """Every tensor of `shard`, durable in every output and read back from the disk."""
        tensors = self._job.on_shard(shard)
        for _ in range(_MAX_ATTEMPTS):
            self.stream(on_bytes, shard)
            if all(self._in_threads(lambda output, stop: output.reread(tensors, stop))):
                return
        raise self._unreliable()

    def finish(self, on_bytes: Callable[[int], None]) -> dict[PlannedOutput, tuple[FileEntry, ...]]:
        """What is missing, then every output checked whole and given its name."""
        for _ in range(_MAX_ATTEMPTS):
            self.stream(on_bytes)
            entries = [files for files in self._in_threads(Output.check) if files is not None]
            if len(entries) == len(self._outputs):
                break
        else:
            raise self._unreliable()
        for output, files in zip(self._outputs, entries, strict=True):
            output.publish(files)
        return {output.plan: files for output, files in zip(self._outputs, entries, strict=True)}

    def stream(self, on_bytes: Callable[[int], None], shard: Path | None = None) -> None:
        """Make what is missing durable, all of it or what lies in one shard."""
        with Booker(self._outputs) as booker:
            stream_rows(self._job.decoder, self._outputs, self._num_threads, on_bytes, booker.add, shard, self._worth)

    def _in_threads(self, check: Callable[[Output, Event], _Result]) -> list[_Result]:
        """Of each output; Ctrl-C stops all of them, which would read on for minutes."""
        stop = Event()
        with ThreadPoolExecutor(self._num_threads, "check") as pool:
            try:
                return list(pool.map(lambda output: check(output, stop), self._outputs))
            finally:
                stop.set()

    def _unreliable(self) -> ConversionError:
        folder = self._outputs[0].plan.stem.parent
        return ConversionError(
            f"{folder} does not give back what was written to it", "check the disk and the memory of this machine"
        )


class Meter:
    """Counts source bytes that were fetched, and those that several works have converted, as one."""

    def __init__(self, works: Sequence[Work], fetched_bytes: int, on_progress: OnProgress) -> None:
        """`fetched_bytes` are all that will be fetched."""
        self._total_bytes = sum(work.source_bytes for work in works) + fetched_bytes
        self._done_bytes = sum(work.done_bytes for work in works)
        self._on_progress = on_progress

    def add(self, num_bytes: int) -> None:
        """A block that is made a second time does not count again."""
        self._done_bytes = min(self._done_bytes + num_bytes, self._total_bytes)
        self._on_progress(self._done_bytes, self._total_bytes)

    @contextmanager
    def fetching(self, num_bytes: int) -> Iterator[Callable[[int], None]]:
        """Takes the bytes of a shard as they come; what an earlier run had of it counts at the end."""
        left = num_bytes

        def on_bytes(came: int) -> None:
            nonlocal left
            came = min(came, left)
            left -= came
            self.add(came)

        yield on_bytes
        if left:
            self.add(left)
