"""Corrects the known faults of a GGUF inside its header, in place: the weights keep their bytes and their offsets.

Invariant: before the first byte of the file changes, a record with the old and the new bytes is on the disk beside it.
Whatever ends the process after that, `repair` finishes the change and `undo` takes it back, because each byte of the
range is then either the old or the new one.
A value of another length moves the rest of the header; the padding before the weights takes up the difference.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from pydantic import Base64Bytes, BaseModel, ValidationError

from mm35local.errors import ModelFileError
from mm35local.models.faults import Fault, find_faults
from mm35local.models.gguf_cursor import MAX_HEADER_BYTES
from mm35local.models.gguf_header import GgufHeader, parse_header

_F32, _STRING, _F64 = 6, 8, 12
_FLOATS = {_F32: "<f", _F64: "<d"}
_SUFFIX = ".repair.json"


@dataclass(frozen=True, slots=True)
class Repair:
    path: Path
    """The file itself, where a link was given."""
    record: Path
    changes: tuple[str, ...]
    """`key: found → right`."""
    not_in_place: tuple[str, ...]
    """Faults that the header has no room for; they are corrected while loading."""


class _Record(BaseModel):
    file_bytes: int
    offset: int
    old: Base64Bytes
    new: Base64Bytes
    changes: list[str]


class _State(Enum):
    OLD = auto()
    NEW = auto()
    TORN = auto()
    """Some bytes are the old ones, some the new ones: the write was cut off."""


def record_path(path: Path) -> Path:
    path = path.resolve()
    return path.with_name(path.name + _SUFFIX)


def repair(path: Path) -> Repair:
    """Correct what can be corrected in place; finish a repair that was cut off. Raises ModelFileError."""
    path = path.resolve()
    record_file = record_path(path)
    with _locked(path) as fd:
        record = _read_record(path)
        if record is None:
            record, not_in_place = _plan(path)
            if not record.changes:
                return Repair(path, record_file, (), not_in_place)
            _write_record(record_file, record)
        else:
            not_in_place = ()
        if _state(path, fd, record) is _State.NEW:
            return Repair(path, record_file, (), _still_wrong(path))
        _overwrite(fd, record.new, record.offset)
        return Repair(path, record_file, tuple(record.changes), not_in_place)


def undo(path: Path) -> Repair:
    """Put the old bytes back and remove the record. Raises ModelFileError, also where nothing was repaired."""
    path = path.resolve()
    record_file = record_path(path)
    with _locked(path) as fd:
        record = _read_record(path)
        if record is None:
            raise ModelFileError(str(path), f"nothing to undo: {record_file.name} is not beside it", "check the path")
        if _state(path, fd, record) is not _State.OLD:
            _overwrite(fd, record.old, record.offset)
        record_file.unlink()
        _sync_folder(path.parent)
        return Repair(path, record_file, tuple(record.changes), ())


def _plan(path: Path) -> tuple[_Record, tuple[str, ...]]:
    header = parse_header(path)
    with path.open("rb") as file:
        old = file.read(header.data_offset)
    new, done, left = _corrected(old, header, find_faults(header))
    begin, end = _difference(old, new)
    record = _Record.model_construct(
        file_bytes=header.file_bytes, offset=begin, old=old[begin:end], new=new[begin:end],
        changes=[f"{fault.key}: {fault.found} → {fault.right}" for fault in done],
    )  # fmt: skip
    return record, tuple(str(fault) for fault in left)


def _still_wrong(path: Path) -> tuple[str, ...]:
    return tuple(str(fault) for fault in find_faults(parse_header(path)))


def _corrected(old: bytes, header: GgufHeader, faults: Sequence[Fault]) -> tuple[bytes, list[Fault], list[Fault]]:
    """(the header as it should be, of the same length; faults corrected; faults left)."""
    new, end, done, left = old, header.end_offset, [], []
    for fault in sorted(faults, key=lambda fault: -header.spans[fault.key].offset):
        span = header.spans[fault.key]
        value = _encoded(fault.right, span.kind)
        grown = len(value) - span.num_bytes
        if not value or (grown and -(-(end + grown) // header.alignment) * header.alignment != header.data_offset):
            left.append(fault)
            continue
        end += grown
        body = new[: span.offset] + value + new[span.offset + span.num_bytes :]
        new = body[:end].ljust(len(old), b"\0")
        done.append(fault)
    return new, done, left


def _encoded(value: float | str, kind: int) -> bytes:
    """As a GGUF value of type `kind`; empty where it is none."""
    if isinstance(value, str):
        text = value.encode()
        return struct.pack("<Q", len(text)) + text if kind == _STRING else b""
    return struct.pack(_FLOATS[kind], value) if kind in _FLOATS else b""


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """The smallest range outside of which both are the same."""
    if old == new:
        return 0, 0
    differs = [index for index, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
    return differs[0], differs[-1] + 1


def _state(path: Path, fd: int, record: _Record) -> _State:
    """Raises ModelFileError where the file is no longer the one of the record."""
    current = os.pread(fd, len(record.new), record.offset)
    if os.fstat(fd).st_size == record.file_bytes and len(current) == len(record.new):
        if current == record.new:
            return _State.NEW
        if current == record.old:
            return _State.OLD
        if all(byte in pair for byte, *pair in zip(current, record.old, record.new, strict=True)):
            return _State.TORN
    raise ModelFileError(
        str(path), f"it is not the file that {record_path(path).name} was written for",
        f"remove {record_path(path)} if the file was replaced since", record.offset,
    )  # fmt: skip


def _overwrite(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
    os.fsync(fd)


def _read_record(path: Path) -> _Record | None:
    record_file = record_path(path)
    try:
        with record_file.open("rb") as file:
            text = file.read(4 * MAX_HEADER_BYTES)
        record = _Record.model_validate_json(text)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ModelFileError(str(record_file), "not a record of a repair", "move it away") from error
    if len(record.old) != len(record.new) or not 0 <= record.offset < record.file_bytes:
        raise ModelFileError(str(record_file), "not a record of a repair", "move it away")
    return record


def _write_record(record_file: Path, record: _Record) -> None:
    """Durable before it returns, and never half there."""
    partial = record_file.with_name(record_file.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(record.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, record_file)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(record_file.parent)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file open for writing, by one repair at a time."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelFileError(str(path), error.strerror or str(error), "check the path and its permissions") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    except BlockingIOError as error:
        raise ModelFileError(str(path), "another repair is at it", "wait for it to end") from error
    except OSError as error:
        raise ModelFileError(
            str(path), f"cannot be repaired: {error.strerror or error}", "free some space, then give the command again"
        ) from error
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
