"""Where the person writes. Enter sends, Shift+Enter or Ctrl+J breaks the line, Up in an empty prompt brings back
what was asked before."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.widgets import TextArea

from mm35local.tui.ui_events import Submitted

_NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")


class Prompt(TextArea):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", tooltip="Send the question"),
        # Redo in a plain text area.
        Binding("ctrl+y", "screen.copy", "Copy", tooltip="Copy the last answer as Markdown"),
        Binding(",".join(_NEWLINE_KEYS), "newline", "New line", show=False),
        Binding("up", "earlier", "Earlier question (in an empty prompt)", show=False),
        Binding("down", "later", "Later question", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="Ask anything", compact=True, highlight_cursor_line=False, id="prompt")
        # A blinking cursor would repaint an idle terminal twice a second.
        self.cursor_blink = False
        self.questions: list[str] = []
        """What was asked before, the newest first."""
        self._recalled = -1

    async def _on_key(self, event: Key) -> None:
        # Bindings are looked up only after the widget has seen a key: in a burst (typing over ssh, a script) they
        # would act after the characters that follow. TextArea would also take enter as a character.
        if event.key == "enter":
            self.action_submit()
        elif event.key in _NEWLINE_KEYS:
            self.action_newline()
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def action_submit(self) -> None:
        text = self.text.strip("\n")
        if not text.strip():
            return
        self.post_message(Submitted(text))

    def accepted(self, text: str) -> None:
        """The question is on its way: empty the prompt and remember it."""
        self.questions = [text, *(question for question in self.questions if question != text)]
        self._recalled = -1
        self.text = ""

    def write(self, text: str) -> None:
        """Put a text there, with the cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def action_newline(self) -> None:
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def action_earlier(self) -> None:
        if self._is_recalling and self._recalled + 1 < len(self.questions):
            self._recall(self._recalled + 1)
        else:
            self.action_cursor_up()

    def action_later(self) -> None:
        if self._is_recalling and self._recalled >= 0:
            self._recall(self._recalled - 1)
        else:
            self.action_cursor_down()

    @property
    def _is_recalling(self) -> bool:
        """The prompt is empty, or holds a recalled question that was not touched since."""
        if self._recalled < 0:
            return not self.text
        return self.text == self.questions[self._recalled]

    def _recall(self, index: int) -> None:
        self._recalled = index
        self.text = self.questions[index] if index >= 0 else ""
        self.move_cursor(self.document.end)
