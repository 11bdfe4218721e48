"""Files below the folder in which the chat was started, and which of them a few letters mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from textual.fuzzy import Matcher

MAX_FILES = 20_000
_JUNK = {"node_modules", "__pycache__", "target", "build", "dist", "venv"}


def list_files(root: Path) -> list[str]:
    """Paths relative to `root`, near ones first; hidden ones and what programs generate are left out."""
    return [name for name, _ in zip(_walk(root), range(MAX_FILES), strict=False)]


def _walk(root: Path) -> Iterator[str]:
    folders = [""]
    while folders:
        deeper: list[str] = []
        for folder in folders:
            try:
                entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _JUNK:
                    continue
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    deeper.append(f"{path}/")
                elif path.isprintable():
                    yield path
        folders = deeper


def best_matches(query: str, paths: list[str], limit: int = 8) -> list[str]:
    """The paths that hold the letters of `query` in this order, the best first."""
    if not query:
        return paths[:limit]
    matcher = Matcher(query)
    scored = [(score, path) for path in paths if (score := matcher.match(path)) > 0]
    return [path for _, path in sorted(scored, key=lambda pair: (-pair[0], len(pair[1]), pair[1]))[:limit]]
