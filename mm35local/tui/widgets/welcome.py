"""What an empty conversation shows: which model answers, why, and the first keys."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from mm35local.tui.events import ModelCard
from mm35local.tui.figures import count
from mm35local.tui.plain_text import visible

_KEYS = (
    ("Enter", "send"),
    ("Shift+Enter, Ctrl+J", "new line"),
    ("Esc", "stop the answer"),
    ("Ctrl+O", "past conversations"),
    ("F1", "all keys"),
)


class Welcome(Static):
    def __init__(self, reason: str) -> None:
        super().__init__(markup=False)
        self._reason = reason

    def on_mount(self) -> None:
        self.tell(None)

    def tell(self, model: ModelCard | None) -> None:
        lines = [Content.styled(visible(model.id) if model else "mm35", "bold $text-primary")]
        if model is not None and model.n_ctx:
            gib = f" · {model.size_bytes / (1 << 30):.1f} GiB" if model.size_bytes else ""
            lines.append(
                Content.styled(f"{count(model.n_ctx)} tokens of context{gib}, on this server", "$foreground 60%")
            )
        reason = self._reason or (model.reason if model else "")
        if reason:
            lines.append(Content(visible(reason)))
        lines.append(Content())
        lines.extend(
            Content.assemble((f"{key:>20}  ", "$text-accent"), (what, "$foreground 60%")) for key, what in _KEYS
        )
        self.update(Content("\n").join(lines))
