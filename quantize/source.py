"""Where a checkpoint comes from: a folder, or a repository of the hub of which one layout is fetched."""

from __future__ import annotations

import re
from pathlib import Path

from mm35local.errors import CheckpointError
from quantize.checkpoint import Layout

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SMALL_FILES = ("tekken.json", "README.md", "chat_template.jinja", "SYSTEM_PROMPT.txt")


def fetch_source(source: Path, endpoint: str | None = None) -> Path:
    """`source` itself if it is a folder or no repository's name; else the folder of the hub's cache, fetched.

    The release holds the weights twice; only one layout is fetched, HF's where both are. Raises DownloadError or
    CheckpointError.
    """
    name = source.as_posix()
    if source.exists() or not _REPO.fullmatch(name):
        return source
    from mm35local.models.hub import download_folder, list_files

    files = list_files(name, endpoint)
    for layout in Layout:
        weights = [file for file in files if file.startswith(layout.value) and file.endswith(".safetensors")]
        if weights and layout.config_name in files:
            wanted = [*weights, layout.config_name, layout.index_name, *_SMALL_FILES]
            return download_folder(name, wanted, endpoint)
    raise CheckpointError(
        name,
        "this repository of the hub has no checkpoint that can be converted: expected config.json with "
        "model*.safetensors, or params.json with consolidated*.safetensors",
        "give the repository that holds the original weights",
    )
