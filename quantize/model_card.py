"""What the README.md of a checkpoint (its model card) says about name and licence; all of it optional."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_SNAPSHOT = re.compile(r"models--(.+?)--(.+)")


@dataclass(frozen=True, slots=True)
class ModelCard:
    name: str
    license: str = ""
    license_name: str = ""
    license_link: str = ""
    repo: str = ""
    """On the hub, where the folder lies in its cache."""
    revision: str = ""

    @property
    def slug(self) -> str:
        """The name as the stem of a file: letters, digits, `.`, `_` and `-` only, never empty."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")[:100] or "model"


def read_model_card(folder: Path) -> ModelCard:
    """From README.md; without one, or without a heading in it, the name is the hub repository's or the folder's."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_BYTES)
    except OSError:
        text = ""
    front = _FRONT_MATTER.match(text)
    header = front[1] if front else ""
    heading = re.search(r"^# +(\S.*?)\s*$", text[front.end() if front else 0 :], re.MULTILINE)
    repo, revision = _origin(folder.resolve())
    return ModelCard(
        name=heading[1] if heading else repo.rpartition("/")[2] or folder.resolve().name,
        repo=repo,
        revision=revision,
        license=_field(header, "license"),
        license_name=_field(header, "license_name"),
        license_link=_field(header, "license_link"),
    )


def _field(header: str, key: str) -> str:
    match = re.search(rf"^{key}:[ \t]*(\S.*?)\s*$", header, re.MULTILINE)
    return match[1].strip("'\"") if match else ""


def _origin(folder: Path) -> tuple[str, str]:
    """(repository, revision) of `models--ORG--NAME/snapshots/REVISION` in the hub's cache; empty elsewhere."""
    for part, child, revision in zip(folder.parts, folder.parts[1:], folder.parts[2:], strict=False):
        match = _SNAPSHOT.fullmatch(part)
        if match and child == "snapshots":
            return f"{match[1]}/{match[2]}", revision
    return "", ""
