"""Every key, read from the bindings themselves, so this page cannot be out of date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.keys import format_key
from textual.screen import ModalScreen
from textual.widgets import Static

from mm35local.tui.commands import Command


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "Back")]

    def __init__(self, groups: Iterable[tuple[str, Iterable[BindingType]]], commands: Iterable[Command] = ()) -> None:
        """Groups of (title, bindings), shown in this order."""
        super().__init__()
        self._groups = list(groups)
        self._commands = list(commands)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="window") as window:
            window.border_title = "Keys"
            window.border_subtitle = "Esc goes back"
            yield Static(self._page(), markup=False)

    def _page(self) -> Content:
        lines: list[Content] = []
        for title, bindings in self._groups:
            lines.extend([Content(), Content.styled(title, "bold $text-primary")])
            lines.extend(
                _line(binding)
                for binding in bindings
                if isinstance(binding, Binding) and not binding.action.startswith("screen.")
            )
        lines.extend([Content(), Content.styled("Commands", "bold $text-primary")])
        lines.extend(
            Content.assemble((f"{f'/{c.name} {c.argument}'.strip():>26}  ", "$text-accent"), c.help)
            for c in self._commands
        )
        return Content("\n").join(lines[1:])


def _line(binding: Binding) -> Content:
    keys = ", ".join(_spell(key) for key in binding.key.split(","))
    return Content.assemble((f"{keys:>26}  ", "$text-accent"), binding.tooltip or binding.description)


def _spell(key: str) -> str:
    return "+".join(format_key(part).capitalize() for part in key.strip().split("+"))
