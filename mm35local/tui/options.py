"""What the command line decides for a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mm35local.tui.attach import Launch


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """None leaves the choice to the server."""

    url: str
    api_key: str | None = None
    launch: Launch | None = None
    """How to start a server where none answers; None never starts one."""
    history_path: Path | None = None
    """None keeps conversations in memory only."""
    system: str | None = None
    effort: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    continue_last: bool = False
    reason: str | None = None
    """One line for the start of the chat: why this model."""

    theme: str = "mm35-dark"
    presets: Mapping[str, str] = field(default_factory=dict)
    """System prompts by name."""
    settings_path: Path | None = None
    """Where the settings screen keeps what is chosen; None keeps nothing."""

    @property
    def address(self) -> str:
        """Where the answers come from: a server that may be started need not be the one that runs at `url`."""
        return self.launch.url if self.launch else self.url
