"""What the settings screen keeps: the [chat] table of the settings file. Everything else in the file, comments
included, stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from mm35local.errors import UsageError
from mm35local.settings import ChatSettings


def keep(path: Path, chosen: ChatSettings) -> None:
    """Write aside, then rename. Raises UsageError where the file cannot be read as TOML or be written."""
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        document["chat"] = chosen.model_dump(exclude_defaults=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".toml.new")
        aside.write_text(tomlkit.dumps(document), "utf-8")
        os.replace(aside, path)
    except (OSError, UnicodeDecodeError, TOMLKitError) as problem:
        raise UsageError(
            f"{path}: {problem}", "the settings hold until you leave; correct the file to keep them"
        ) from problem
