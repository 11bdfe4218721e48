"""Which revision of a repository a conversion is made of: where shards were consumed, the one that they came from.

What has begun with one revision ends with it, whatever the hub has by then, until it is left by hand.
"""

from __future__ import annotations

from pathlib import Path

from mm35local.errors import CheckpointError
from mm35local.models.hub import cached_folder, cached_revisions
from quantize.checkpoint import open_checkpoint
from quantize.head import SUFFIX, read_head


def held_revision(repo: str) -> str | None:
    """Of the cache's newest folder in which a shard was consumed. Raises CheckpointError for a damaged head."""
    return next((folder.name for folder in cached_revisions(repo) if _is_consumed(folder)), None)


def leave_others(repo: str, kept: Path) -> list[str]:
    """Forget of every revision but that in the folder `kept` that shards of it were consumed; those that were left.

    Their heads go. Shards that are still there stay in the hub's cache, and outputs where they are.
    """
    left = [folder for folder in cached_revisions(repo) if folder != kept and _is_consumed(folder)]
    for folder in left:
        for head in folder.glob(f"*{SUFFIX}"):
            head.unlink(missing_ok=True)
    return [folder.name for folder in left]


def whole_in_cache(repo: str, revision: str | None) -> Path | None:
    """The cache's folder of `revision`, or of the last one that was asked for; None unless the weights of every shard
    are in it or were consumed."""
    folder = cached_folder(repo, revision)
    try:
        return folder if folder and _is_whole(folder) else None
    except CheckpointError:
        return None


def _is_whole(folder: Path) -> bool:
    shards = {tensor.path for tensor in open_checkpoint(folder).tensors.values()}
    return all(shard.is_file() or _was_consumed(shard) for shard in shards)


def _is_consumed(folder: Path) -> bool:
    return any(_was_consumed(path.with_name(path.name.removesuffix(SUFFIX))) for path in folder.glob(f"*{SUFFIX}"))


def _was_consumed(shard: Path) -> bool:
    head = read_head(shard)
    return head is not None and head.is_consumed
