"""The door for shards that come and go one by one while a conversion runs; `consume` is what stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from quantize.manifest import Manifest
from quantize.output import PlannedOutput


class Supply(Protocol):
    @property
    def folder(self) -> Path:
        """On the file system where shards stand."""

    @property
    def is_consuming(self) -> bool:
        """Do shards go once they are converted?"""

    @property
    def can_bring(self) -> bool:
        """Can it fetch a shard that is not here?"""

    def bring_bytes(self, shard: Path) -> int:
        """Of disk that `bring` takes; 0 for a shard that is here."""

    def bring(self, shard: Path, on_bytes: Callable[[int], None]) -> None:
        """Make the shard be here, checked against what is known of it. Raises DownloadError or CheckpointError."""

    def free_bytes(self, shard: Path) -> int:
        """Of disk that `take_away` gives back of a shard that is here."""

    def take_away(self, shard: Path, finished: Mapping[PlannedOutput, Manifest]) -> None:
        """Delete a shard that nothing needs any more; open outputs were read back, those in `finished` were not.

        Only of a supply that consumes.
        """
