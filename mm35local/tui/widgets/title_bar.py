"""The top line: the model and its context on the left, the conversation on the right."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from mm35local.tui.events import ModelCard
from mm35local.tui.figures import count
from mm35local.tui.plain_text import visible


class TitleBar(Horizontal):
    def __init__(self) -> None:
        super().__init__()
        self._model = Static(Content.styled("mm35", "bold $text-primary"), markup=False, id="model")
        self._title = Static(markup=False, id="title")

    def compose(self) -> ComposeResult:
        yield self._model
        yield self._title

    def tell_model(self, model: ModelCard | None) -> None:
        parts: list[Content | tuple[str, str]] = [("mm35", "bold $text-primary")]
        if model is not None:
            parts.append((f"  {visible(model.id)}", "bold"))
            if model.n_ctx:
                parts.append((f"  {count(model.n_ctx)} ctx", "$foreground 60%"))
        self._model.update(Content.assemble(*parts))

    def tell_title(self, title: str) -> None:
        self._title.update(Content.styled(visible(title), "$foreground 60%"))
