"""The bottom line: the keys that do something right now, each a click away too.

Textual's own Footer builds a widget a key whenever the keys change, and binds each to itself for good.
"""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget


class KeyLine(Widget):
    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[tuple[str, str, str, bool]] = []
        """Key, as it is shown, what it does, and whether it can."""

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._tell)

    def _tell(self, screen: Screen[object]) -> None:
        if screen is not self.screen or not self.app.app_focus:
            return
        shown = [active for active in screen.active_bindings.values() if active.binding.show]
        first_of_action = {active.binding.action: active for active in reversed(shown)}
        self._keys = [
            (active.binding.key, self.app.get_key_display(active.binding), active.binding.description, active.enabled)
            for active in shown
            if first_of_action[active.binding.action] is active
        ]
        self.refresh()

    def render(self) -> Content:
        parts: list[Content | tuple[str, str]] = []
        for _, display, description, is_enabled in self._keys:
            dim = "" if is_enabled else "dim "
            parts += [(f"{display} ", f"bold {dim}$footer-key-foreground")]
            parts += [(f"{description} ", f"{dim}$footer-description-foreground")]
        return Content.assemble(*parts)

    def on_click(self, event: Click) -> None:
        end = self.content_offset.x
        for key, display, description, is_enabled in self._keys:
            end += cell_len(f"{display} {description} ")
            if event.x < end:
                if is_enabled:
                    self.app.simulate_key(key)
                return
