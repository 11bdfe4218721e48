"""What the model thought before it answered: folded, under a line that counts while it grows."""

from __future__ import annotations

from textual.widgets import Collapsible

from mm35local.tui.figures import count, duration
from mm35local.tui.widgets.growing import Ground
from mm35local.tui.widgets.plain_view import PlainView


class Thinking(Collapsible, Ground):
    class Contents(Collapsible.Contents, Ground):
        """Grows with the thinking."""

    def __init__(self, text: str = "") -> None:
        self._body = PlainView(text)
        super().__init__(self._body, title="thinking", collapsed_symbol="▸", expanded_symbol="▾")
        self.display = bool(text)

    def add(self, text: str) -> None:
        self.display = True
        self._body.add(text, is_shown=not self.collapsed)

    def _watch_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self._body.refresh(layout=True)
        super()._watch_collapsed(collapsed)

    def tell(self, is_thinking: bool, num_tokens: int, seconds: float) -> None:
        """Update the line above: while it thinks, and after."""
        verb = "thinking" if is_thinking else "thought"
        parts = [verb, *([f"for {duration(seconds)}"] if seconds >= 0.1 else [])]
        tokens = f" · {count(num_tokens)} tokens" if num_tokens else ""
        self.title = " ".join(parts) + tokens
