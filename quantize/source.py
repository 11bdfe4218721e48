"""Where a checkpoint comes from: a folder, or a repository of the hub of which one layout is fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mm35local.errors import CheckpointError, DownloadError
from quantize.checkpoint import Layout

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SMALL_FILES = ("tekken.json", "README.md", "chat_template.jinja", "SYSTEM_PROMPT.txt")


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint folder, and how to get shards that are not in it."""

    folder: Path
    repo: str = ""
    """ORG/NAME on the hub; empty for a folder of one's own."""
    endpoint: str | None = None

    @property
    def cache_folder(self) -> Path | None:
        """What the hub's cache holds of the repository: `folder` is CACHE_FOLDER/snapshots/REVISION."""
        return self.folder.parent.parent if self.repo else None

    def download(self, shard: Path) -> None:
        """Raises DownloadError."""
        from mm35local.models.hub import download_file

        download_file(self.repo, shard.name, self.endpoint, self.folder.name)


def fetch_source(source: Path, endpoint: str | None = None) -> Source:
    """`source` itself if it is a folder or no repository's name; else the folder of the hub's cache, fetched.

    The release holds the weights twice; only one layout is fetched, HF's where both are. Raises DownloadError or
    CheckpointError.
    """
    name = source.as_posix()
    if source.exists() or not _REPO.fullmatch(name):
        return Source(source)
    from mm35local.models.hub import download_folder, list_files

    try:
        files = list_files(name, endpoint)
    except DownloadError as error:
        hint = f"if {name} is a folder of yours: it is not there, check the path; if it is on the hub: {error.hint}"
        raise DownloadError(error.message, hint) from error
    layout, weights = _choose_layout(name, files)
    wanted = [*weights, layout.config_name, layout.index_name, *_SMALL_FILES]
    return Source(download_folder(name, wanted, endpoint), name, endpoint)


def _choose_layout(name: str, files: Sequence[str]) -> tuple[Layout, list[str]]:
    for layout in Layout:
        weights = [file for file in files if file.startswith(layout.value) and file.endswith(".safetensors")]
        if weights and layout.config_name in files:
            return layout, weights
    raise CheckpointError(
        name,
        "this repository of the hub has no checkpoint that can be converted: expected config.json with "
        "model*.safetensors, or params.json with consolidated*.safetensors",
        "give the repository that holds the original weights",
    )
