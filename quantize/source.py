"""Where a checkpoint comes from: a folder, or a repository of the hub whose shards are fetched one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mm35local.errors import CheckpointError, DownloadError, UsageError
from quantize.checkpoint import Layout
from quantize.head import SUFFIX, head_path, write_head
from quantize.remote import remote_head

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

    def download(self, shard: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Raises DownloadError."""
        from mm35local.models.hub import download_file

        download_file(self.repo, shard.name, self.endpoint, self.folder.name, on_bytes)


def fetch_source(
    source: Path,
    endpoint: str | None = None,
    *,
    is_latest: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> Source:
    """`source` itself if it is a folder or no repository's name; else the folder of the hub's cache, with small files.

    Of shards that are not in the cache only the heads are fetched. The release holds the weights twice; only one layout
    is looked at, HF's where both are. A revision of which shards were consumed is gone on with, whatever the hub has
    now, unless `is_latest`, which leaves it. Where nobody answers, a repository that is whole in the cache is taken
    unchecked. Raises DownloadError, CheckpointError or UsageError.
    """
    name = source.as_posix()
    if source.exists() or not _REPO.fullmatch(name):
        if is_latest:
            raise UsageError(f"--latest: {source} is no repository of the hub", "give ORG/NAME, or leave --latest out")
        return Source(source)
    from mm35local.models.hub import check_reachable
    from quantize.revision import held_revision, whole_in_cache

    held = held_revision(name)
    try:
        check_reachable(endpoint)
    except DownloadError as error:
        folder = None if is_latest else whole_in_cache(name, held)
        if folder is None:
            raise _for_folders_too(name, error) from error
        on_note(f"{error.message}; {name} is taken unchecked from the cache, revision {folder.name[:12]}")
        return Source(folder, name, endpoint)
    if held is None:
        return _fetch(name, endpoint, None)
    return _fetch_latest(name, endpoint, held, on_note) if is_latest else _go_on(name, endpoint, held, on_note)


def _fetch(name: str, endpoint: str | None, revision: str | None) -> Source:
    """`revision` None: the newest."""
    from mm35local.models.hub import download_folder, list_files

    try:
        files = list_files(name, endpoint, revision)
    except DownloadError as error:
        raise _for_folders_too(name, error) from error
    layout, shards = _choose_layout(name, files)
    folder = download_folder(name, [layout.config_name, layout.index_name, *_SMALL_FILES], endpoint, revision)
    fetched = Source(folder, name, endpoint)
    for shard in shards:
        _fetch_head(fetched, folder / shard)
    return fetched


def _go_on(name: str, endpoint: str | None, held: str, on_note: Callable[[str], None]) -> Source:
    from mm35local.models.hub import latest_revision

    latest = latest_revision(name, endpoint)
    if latest not in (None, held):
        on_note(
            f"{name}: going on with revision {held[:12]}, of which shards were consumed; "
            f"the hub has {str(latest)[:12]} now, which --latest takes"
        )
    return _fetch(name, endpoint, held)


def _fetch_latest(name: str, endpoint: str | None, held: str, on_note: Callable[[str], None]) -> Source:
    """What is left is left last, so that nothing is lost where the hub fails."""
    from quantize.revision import leave_others

    fetched = _fetch(name, endpoint, None)
    if fetched.folder.name == held:
        on_note(f"{name}: revision {held[:12]} is still the newest; going on with it")
    for left in leave_others(name, fetched.folder):
        on_note(f"{name}: left revision {left[:12]}; taking {fetched.folder.name[:12]}")
    return fetched


def _for_folders_too(name: str, error: DownloadError) -> DownloadError:
    hint = f"if {name} is a folder of yours: it is not there, check the path; if it is on the hub: {error.hint}"
    return DownloadError(error.message, hint)


def _choose_layout(name: str, files: Sequence[str]) -> tuple[Layout, list[str]]:
    """(layout, names of its shards), of which an offline cache has some as heads only."""
    names = {file.removesuffix(SUFFIX) for file in files}
    for layout in Layout:
        shards = [file for file in names if file.startswith(layout.value) and file.endswith(".safetensors")]
        if shards and layout.config_name in files:
            return layout, sorted(shards)
    raise CheckpointError(
        name,
        "this repository of the hub has no checkpoint that can be converted: expected config.json with "
        "model*.safetensors, or params.json with consolidated*.safetensors",
        "give the repository that holds the original weights",
    )


def _fetch_head(source: Source, shard: Path) -> None:
    if shard.is_file() or head_path(shard).is_file():
        return
    from mm35local.models.hub import file_facts, read_range

    revision = source.folder.name
    facts = file_facts(source.repo, shard.name, revision, source.endpoint)
    read = partial(read_range, source.repo, shard.name, revision, endpoint=source.endpoint)
    write_head(remote_head(shard, facts.etag, facts.num_bytes, read))
