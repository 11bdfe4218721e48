"""Where the person writes. Enter sends, Shift+Enter or Ctrl+J breaks the line, Up in an empty prompt brings back
what was asked before; `/` and `@` offer what they may become."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.events import Key, Paste
from textual.widgets import TextArea

from mm35local.tui.external import edit_text
from mm35local.tui.ui_events import Completed, Completing, Detached, Pasted, Submitted
from mm35local.tui.widgets.completions import Completions, Word, word_before

_NEWLINE_KEYS = ("shift+enter", "ctrl+j", "alt+enter")
_LONG_PASTE_CHARS = 2000


class Prompt(TextArea):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter",
            "submit",
            "Send",
            tooltip="Send the question; while an answer comes, it waits for its end",
            show=False,
        ),
        # Redo in a plain text area.
        Binding("ctrl+y", "screen.copy", "Copy", tooltip="Copy the last answer as Markdown"),
        Binding(",".join(_NEWLINE_KEYS), "newline", "New line", show=False),
        Binding("up", "earlier", "Earlier question (in an empty prompt)", show=False),
        Binding("down", "later", "Later question", show=False),
        Binding("ctrl+g", "edit", "Editor", tooltip="Write in $EDITOR", show=False),
        Binding("tab", "complete", "Complete", tooltip="Complete a /command or an @file", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(
            placeholder="Ask anything · / commands · @ files",
            compact=True,
            highlight_cursor_line=False,
            id="prompt",
        )
        # A blinking cursor would repaint an idle terminal twice a second.
        self.cursor_blink = False
        self.completions = Completions()
        self.questions: list[str] = []
        """What was asked before, the newest first."""
        self._recalled = -1

    async def _on_key(self, event: Key) -> None:
        # Bindings are looked up only after the widget has seen a key: in a burst (typing over ssh, a script) they
        # would act after the characters that follow. TextArea would also take enter as a character.
        if self.completions.display and self._choose_by(event.key):
            pass
        elif event.key == "enter":
            self.action_submit()
        elif event.key in _NEWLINE_KEYS:
            self.action_newline()
        elif event.key == "tab":
            self.action_complete()
        elif event.key == "backspace" and not self.text:
            self.post_message(Detached())
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: Paste) -> None:
        if len(event.text) < _LONG_PASTE_CHARS:
            await super()._on_paste(event)
        else:
            self.post_message(Pasted(event.text))
        event.stop()
        event.prevent_default()

    # --- sending and recalling ---

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

    def action_edit(self) -> None:
        text = edit_text(self.app, self.text)
        if text is not None:
            self.write(text.rstrip("\n"))

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
        self.write(self.questions[index] if index >= 0 else "")

    # --- completing ---

    @property
    def _word(self) -> Word | None:
        """What stands before the cursor, if it can be completed."""
        row, column = self.cursor_location
        is_recalled = self._recalled >= 0 and self._is_recalling
        return None if is_recalled else word_before(self.document.get_line(row)[:column], row == 0)

    @on(TextArea.Changed)
    def _look_at_word(self) -> None:
        word = self._word
        if word is not None or self.completions.display:
            self.post_message(Completing(word))

    def _choose_by(self, key: str) -> bool:
        """Whether the list of completions took the key."""
        if self.completions.word != self._word:
            # The list comes from a worker: of a burst of keys it may still show what fits the first ones.
            self.completions.offer(None, [])
            return False
        match key:
            case "up":
                self.completions.action_cursor_up()
            case "down":
                self.completions.action_cursor_down()
            case "escape":
                self.completions.offer(None, [])
            case "tab" | "enter":
                return self._accept(is_sent=key == "enter")
            case _:
                return False
        return True

    def _accept(self, is_sent: bool) -> bool:
        """Take the choice. Enter on a command that is written out sends it instead."""
        choice, word = self.completions.choice, self.completions.word
        if choice is None or word is None or (is_sent and word.text == choice):
            self.completions.offer(None, [])
            return False
        row, column = self.cursor_location
        text = f"/{choice} " if word.kind == "command" else ""
        self.replace(text, (row, word.start), (row, column), maintain_selection_offset=False)
        self.completions.offer(None, [])
        self.post_message(Completed(word, choice))
        return True

    def action_complete(self) -> None:
        self._look_at_word()
