"""What the commands show while one waits: progress bars on stderr, only where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


@contextmanager
def byte_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes with speed and time left; the callable takes bytes done and bytes in all. Silent in a pipe."""
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _progress(title, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as update:
        yield update


@contextmanager
def _progress(title: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
