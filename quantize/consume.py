"""Shards that come from the hub when they are due, and go once nothing needs them any more.

So a conversion takes the disk of its outputs and of one shard.

Invariant: before a shard goes, every output that needs it was read back from the disk, what was asked to be measured
against it is in the reports, and its head is durable. Only files of the folder that was given are deleted, or of the
one repository in the hub's cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mm35local.errors import CheckpointError, ConversionError, UsageError
from quantize.durable import partial_path, sync_folder
from quantize.fingerprint import PROBE_BYTES
from quantize.head import Head, read_head, write_head
from quantize.job import Job, shards_of
from quantize.manifest import Manifest
from quantize.output import PlannedOutput
from quantize.report import make_report, read_distances, write_report
from quantize.scales import scale_tensors
from quantize.shard import KeptBytes, StoredTensor, parse_tensors, read_header
from quantize.source import Source
from quantize.verify import measure


class ShardSupply:
    """The `Supply` of a source that lies on the hub, or that may be consumed, or both."""

    def __init__(
        self,
        source: Source,
        jobs: Sequence[Job],
        *,
        is_consuming: bool,
        is_proof: bool = False,
        num_threads: int = 0,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        """`is_proof`: measure every output against a shard before it goes. Raises UsageError for what is not to go."""
        self._source = source
        self._jobs = jobs
        self._is_consuming = is_consuming
        self._is_proof = is_proof
        self._num_threads = num_threads
        self._on_warning = on_warning or (lambda text: None)
        if is_consuming:
            for shard in shards_of(jobs):
                self._check_ours(shard)

    @property
    def folder(self) -> Path:
        return self._source.folder

    @property
    def is_consuming(self) -> bool:
        return self._is_consuming

    @property
    def can_bring(self) -> bool:
        return bool(self._source.repo)

    def bring_bytes(self, shard: Path) -> int:
        head = None if shard.is_file() else read_head(shard)
        return head.file_bytes if head and self.can_bring else 0

    def bring(self, shard: Path, on_bytes: Callable[[int], None]) -> None:
        if shard.is_file():
            return
        self._source.download(shard, on_bytes)
        head = read_head(shard)
        if head is not None and read_header(shard) != (head.header, head.file_bytes):
            raise CheckpointError(
                str(shard), "its header is not the one that was planned with", "delete it, then give the command again"
            )

    def free_bytes(self, shard: Path) -> int:
        if not self._is_consuming:
            return 0
        about = shard.stat()
        return 0 if about.st_nlink > 1 or self._sharers(shard) else about.st_size

    def take_away(self, shard: Path, finished: Mapping[PlannedOutput, Manifest]) -> None:
        """Raises ConversionError for an output that is not as it was written: then nothing is deleted."""
        self._check_ours(shard)
        for job in self._jobs:
            tensors = job.on_shard(shard)
            for output in job.outputs:
                is_finished = output in finished
                paths = [file.path if is_finished else partial_path(file.path) for file in output.files]
                if is_finished:
                    _check_finished(output, tensors, finished[output], paths)
                if self._is_proof:
                    self._measure(job, output, tensors, paths)
        write_head(self._head(shard))
        self._delete(shard)

    def _measure(self, job: Job, output: PlannedOutput, tensors: Sequence[int], paths: Sequence[Path]) -> None:
        known = read_distances(output)
        lacking = [index for index in tensors if output.tensor_names[index] not in known]
        if lacking:
            known |= measure(job.decoder, output, lacking, paths, self._num_threads)
            write_report(output, make_report(output, known))

    def _head(self, shard: Path) -> Head:
        """That of the hub goes on, so that the conversion keeps its fingerprint."""
        head = read_head(shard)
        if head is not None and head.kept.identity:
            return replace(head, is_consumed=True)
        return consumed_head(
            shard, [job.decoder.tensors[index].stored for job in self._jobs for index in job.on_shard(shard)]
        )

    def _check_ours(self, shard: Path) -> None:
        folder = self._source.cache_folder or self._source.folder
        is_inside = shard.resolve().is_relative_to(folder.resolve())
        if not is_inside or (shard.is_symlink() and not self._source.repo):
            raise UsageError(
                f"{shard} is a link to {shard.resolve()}: --consume deletes only files of {self._source.folder} itself",
                "give ORG/NAME to consume what the hub's cache holds, or leave --consume out",
            )
        if not os.access(shard.parent, os.W_OK):
            raise UsageError(f"--consume cannot delete files of {shard.parent}", "make the folder writable")

    def _sharers(self, shard: Path) -> list[Path]:
        """Links of other revisions in the hub's cache to the same file."""
        if not self._source.cache_folder or not shard.is_symlink():
            return []
        links = (
            path for path in self._source.cache_folder.glob("snapshots/*/*") if path != shard and path.is_symlink()
        )
        return [path for path in links if path.resolve() == shard.resolve()]

    def _delete(self, shard: Path) -> None:
        """What a link stands for goes first: a link to nothing does no harm, a file that nobody knows does."""
        target = shard.resolve()
        sharers = self._sharers(shard)
        if sharers:
            self._on_warning(
                f"{target} stays: {sharers[0].parent.name}, another revision in the hub's cache, has it too"
            )
        else:
            target.unlink()
            sync_folder(target.parent)
        shard.unlink(missing_ok=True)
        sync_folder(shard.parent)


def _check_finished(output: PlannedOutput, tensors: Sequence[int], manifest: Manifest, paths: Sequence[Path]) -> None:
    wrong = output.damaged(tensors, manifest.tensors, paths)
    if wrong:
        raise ConversionError(
            f"{output.stem}: tensor {wrong[0]} is not as it was written; no more shards were deleted",
            "convert again with --force",
        )


def consumed_head(shard: Path, converted: Iterable[StoredTensor]) -> Head:
    """The head of a shard that is here and whole; `converted` are the tensors that outputs were made of."""
    header, file_bytes = read_header(shard)
    tensors = parse_tensors(shard, header, file_bytes)
    spans = {tensor.offset: tensor.first_bytes(PROBE_BYTES) for tensor in (*tensors, *converted)}
    spans |= {tensor.offset: tensor.first_bytes(tensor.num_bytes) for tensor in scale_tensors(tensors)}
    return Head(shard, header, file_bytes, KeptBytes("", spans), is_consumed=True)
