"""What the model thought before it answered: folded, under a line that counts while it grows."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Collapsible, Static

from mm35local.tui.figures import count, duration
from mm35local.tui.plain_text import visible


class Thinking(Collapsible):
    def __init__(self, text: str = "") -> None:
        self._text = visible(text)
        self._body = Static(Content(self._text), markup=False)
        super().__init__(self._body, title="thinking", collapsed_symbol="▸", expanded_symbol="▾")
        self.display = bool(text)

    def add(self, text: str) -> None:
        self._text += visible(text)
        self.display = True
        if not self.collapsed:
            self._show()

    def _show(self) -> None:
        self._body.update(Content(self._text))

    def _watch_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self._show()
        super()._watch_collapsed(collapsed)

    def tell(self, is_thinking: bool, num_tokens: int, seconds: float) -> None:
        """Update the line above: while it thinks, and after."""
        verb = "thinking" if is_thinking else "thought"
        parts = [verb, *([f"for {duration(seconds)}"] if seconds >= 0.1 else [])]
        tokens = f" · {count(num_tokens)} tokens" if num_tokens else ""
        self.title = " ".join(parts) + tokens
