"""One quant on its way to disk: its files, the journal of what is durable in them, and the manifest at the end.

Invariant: a final name appears only when every byte behind it was read back and is what was computed; the manifest of
a conversion is there only when that is so, and goes before the next one begins.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from quantize.durable import disk_errors, partial_path, sync_folder
from quantize.gguf_file import GgufFile, GgufLayout, digest_tensors
from quantize.imatrix import Imatrix
from quantize.journal import Journal, read_journal
from quantize.manifest import FileEntry, Manifest, read_manifest, write_manifest


@dataclass(frozen=True, slots=True)
class PlannedFile:
    path: Path
    layout: GgufLayout
    first_tensor: int
    """Index of its first tensor among all of the decoder's; it holds as many as its layout has offsets."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedOutput:
    quant: str
    stem: Path
    """What its files' names begin with; the journal and the manifest stand beside them."""
    files: tuple[PlannedFile, ...]
    tensor_names: tuple[str, ...]
    types: tuple[int, ...]
    """ggml type of each tensor of the decoder."""
    fingerprint: str
    imatrix: Imatrix | None = None

    @property
    def num_bytes(self) -> int:
        return sum(file.layout.num_bytes for file in self.files)

    def missing_bytes(self) -> int:
        """Of disk, until it is whole: what stands in partial files counts as written, whole files are done."""
        written = sum(_disk_bytes(partial_path(file.path)) for file in self.files)
        return 0 if self.finished() else max(0, self.num_bytes - written)

    def durable(self) -> Mapping[str, str]:
        """SHA-256 of each tensor that this same conversion has made durable, as far as files and journal tell."""
        manifest = self.finished()
        if manifest is not None:
            return manifest.tensors
        is_begun = all(_has_size(partial_path(file.path), file.layout.num_bytes) for file in self.files)
        return read_journal(self.journal_path, self.fingerprint) if is_begun else {}

    def durable_bytes(self) -> int:
        """Of tensors, in the output."""
        durable = self.durable()
        return sum(self.tensor_bytes(index) for index, name in enumerate(self.tensor_names) if name in durable)

    def tensor_bytes(self, tensor: int) -> int:
        part = self._part(tensor)
        return self.files[part].layout.sizes[tensor - self.files[part].first_tensor]

    def damaged(
        self, tensors: Sequence[int], digests: Mapping[str, str], paths: Sequence[Path], stop: Event | None = None
    ) -> list[str]:
        """Names of those of these tensors that `paths`, one for each file, do not hold with these SHA-256."""
        wrong: list[str] = []
        for part, (file, path) in enumerate(zip(self.files, paths, strict=True)):
            here = [tensor for tensor in tensors if self._part(tensor) == part]
            with path.open("rb") as opened:
                own = [tensor - file.first_tensor for tensor in here]
                found = digest_tensors(opened.fileno(), file.layout, path, own, stop)
            names = [self.tensor_names[tensor] for tensor in here]
            wrong += [name for name, digest in zip(names, found, strict=True) if digests[name] != digest]
        return wrong

    def _part(self, tensor: int) -> int:
        return bisect_right([file.first_tensor for file in self.files], tensor) - 1

    @property
    def manifest_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".manifest.json")

    @property
    def journal_path(self) -> Path:
        return self.stem.with_name(self.stem.name + ".journal")

    def place(self, tensor: int, row: int, num_rows: int) -> tuple[int, int, int]:
        """Of one row of tensor number `tensor`, which has `num_rows`: (number of the file, offset in it, its bytes)."""
        part = self._part(tensor)
        file = self.files[part]
        row_bytes = file.layout.sizes[tensor - file.first_tensor] // num_rows
        return part, file.layout.offsets[tensor - file.first_tensor] + row * row_bytes, row_bytes

    def importance(self, tensor: int) -> NDArray[np.float32] | None:
        """Weights of the columns of tensor number `tensor`, where an importance matrix speaks of it."""
        return self.imatrix.columns.get(self.tensor_names[tensor]) if self.imatrix else None

    def existing(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self.files if file.path.exists())

    def finished(self) -> Manifest | None:
        """The manifest, if this same conversion has already made all the files; their bytes are not read again.

        A run that died while it gave the names had checked everything: the remaining names are given now.
        """
        manifest = read_manifest(self.manifest_path)
        if manifest is None or manifest.conversion != self.fingerprint:
            return None
        for file, entry in zip(self.files, manifest.files, strict=True):
            if not _has_size(file.path, entry.bytes):
                if not _has_size(partial_path(file.path), entry.bytes):
                    return None
                with disk_errors(file.path):
                    os.replace(partial_path(file.path), file.path)
                    sync_folder(file.path.parent)
        self.journal_path.unlink(missing_ok=True)
        return manifest


def _disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.is_file() else 0


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


class Output:
    """A context manager. Leaving it keeps what is durable; where nothing is, it leaves no file behind."""

    def __init__(self, plan: PlannedOutput) -> None:
        """Go on with what an earlier run left, or begin. Raises ConversionError."""
        self.plan = plan
        self._is_begun = self._is_published = False
        self._starts = [file.first_tensor for file in plan.files]
        with ExitStack() as undo:
            self._journal = Journal(plan.journal_path, plan.fingerprint)
            undo.callback(self._journal.close)
            self._files: list[GgufFile] = []
            undo.callback(self._close_files)
            undo.callback(self._discard_if_empty)
            for file in plan.files:
                self._files.append(GgufFile(file.path, file.layout))
            if not self._journal.done or not all(file.is_begun for file in self._files):
                self._is_begun = True
                plan.manifest_path.unlink(missing_ok=True)
                self._journal.start()
                for begun in self._files:
                    begun.begin()
            undo.pop_all()

    @property
    def num_done(self) -> int:
        return len(self._journal.done)

    @property
    def missing_bytes(self) -> int:
        """Of disk, until it is whole."""
        return sum(file.missing_bytes for file in self._files)

    def needs(self, tensor: int) -> bool:
        return self.plan.tensor_names[tensor] not in self._journal.done

    def write(self, tensor: int, offset: int, data: memoryview) -> None:
        """Bytes of tensor number `tensor` of the decoder, from `offset` within it; thread-safe."""
        part = bisect_right(self._starts, tensor) - 1
        self._files[part].write(tensor - self._starts[part], offset, data)

    def book(self, digests: Mapping[int, str]) -> None:
        """Make these tensors durable: every byte of theirs was written. SHA-256 by number."""
        for part in {bisect_right(self._starts, tensor) - 1 for tensor in digests}:
            self._files[part].sync()
        self._journal.book({self.plan.tensor_names[tensor]: digest for tensor, digest in digests.items()})

    def reread(self, tensors: Sequence[int], stop: Event) -> bool:
        """Do the files give back these tensors as they were written? Those that they do not are struck off."""
        paths = [partial_path(file.path) for file in self.plan.files]
        wrong = self.plan.damaged(tensors, self._journal.done, paths, stop)
        if wrong:
            self._journal.strike(wrong)
        return not wrong

    def check(self, stop: Event) -> tuple[FileEntry, ...] | None:
        """Read everything back. None if a tensor is not what was written: it is struck off the journal."""
        entries, wrong = [], []
        for planned, file in zip(self.plan.files, self._files, strict=True):
            file.sync()
            digest, tensors = file.digest(stop)
            entries.append(FileEntry(name=planned.path.name, bytes=planned.layout.num_bytes, sha256=digest))
            names = self.plan.tensor_names[planned.first_tensor :][: len(tensors)]
            wrong += [name for name, found in zip(names, tensors, strict=True) if self._journal.done[name] != found]
        if wrong:
            self._journal.strike(wrong)
        return None if wrong else tuple(entries)

    def publish(self, entries: Sequence[FileEntry]) -> None:
        """Manifest first, then the final names, then the journal goes."""
        write_manifest(
            self.plan.manifest_path,
            Manifest(
                conversion=self.plan.fingerprint,
                quant=self.plan.quant,
                files=tuple(entries),
                tensors=dict(self._journal.done),
            ),
        )
        for file in self._files:
            file.publish()
        self._is_published = True
        self._journal.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard_if_empty()
        self._close_files()
        self._journal.close()

    def _discard_if_empty(self) -> None:
        if self._is_begun and not self._is_published and not self._journal.done:
            for file in self._files:
                file.discard()
            self._journal.remove()

    def _close_files(self) -> None:
        for file in self._files:
            file.close()
