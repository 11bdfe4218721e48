"""Writing so that a power cut loses nothing that was said to be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mm35local.errors import ConversionError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the operating system refuses while `path` is written, as a ConversionError."""
    try:
        yield
    except OSError as error:
        raise ConversionError(
            f"cannot write {path}: {error.strerror or error}",
            "free some space, then give the same command again: it goes on; or choose another folder with -o",
        ) from error


def partial_path(path: Path) -> Path:
    """Where `path` is written until it is whole."""
    return path.with_name(path.name + ".partial")


def write_aside(path: Path, data: bytes) -> None:
    """`data` under `path`, whole or not at all: a temporary name, fsync, rename, fsync of the folder."""
    partial = partial_path(path)
    with disk_errors(path):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
