"""The person's own programs: $EDITOR to write in, $PAGER to read in. The chat waits while they have the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from textual.app import App, SuspendNotSupported


def edit_text(app: App[None], text: str) -> str | None:
    """What became of `text` in the editor; None if nothing did, and the screen says why."""
    return _in_program(app, _editor(), text)


def view_text(app: App[None], text: str, is_edited: bool = False) -> None:
    """Show a text in the pager, or in the editor (what is changed there is not taken over)."""
    _in_program(app, _editor() if is_edited else _command("PAGER", "less", "more"), text)


def _editor() -> list[str] | None:
    return _command("VISUAL") or _command("EDITOR", "nano", "vi")


def _command(variable: str, *otherwise: str) -> list[str] | None:
    if named := shlex.split(os.environ.get(variable, "")):
        return named
    return next(([program] for program in otherwise if shutil.which(program)), None)


def _in_program(app: App[None], command: list[str] | None, text: str) -> str | None:
    if command is None:
        app.notify("Set EDITOR or PAGER in the environment.", title="No editor found", severity="error")
        return None
    with tempfile.TemporaryDirectory(prefix="mm35-") as folder:
        path = Path(folder) / "message.md"
        path.write_text(text, encoding="utf-8")
        try:
            with app.suspend():
                code = subprocess.run([*command, str(path)], check=False).returncode
        except SuspendNotSupported:
            app.notify("This terminal cannot be handed to another program.", severity="error")
            return None
        except OSError as problem:
            app.notify(f"{command[0]}: {problem.strerror}", severity="error", markup=False)
            return None
        return path.read_text(encoding="utf-8", errors="replace") if code == 0 else None
