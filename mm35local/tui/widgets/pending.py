"""The line above the prompt: what goes along with the next question, and which questions wait."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from mm35local.tui.plain_text import visible
from mm35local.tui.records import Attachment


class Pending(Static):
    def __init__(self) -> None:
        super().__init__(markup=False)
        self.attachments: list[Attachment] = []
        self.queue: list[tuple[str, tuple[Attachment, ...]]] = []
        """Questions to send one after the other, each with what is attached to it."""
        self._is_edited = False
        self.display = False

    def tell_edited(self, is_edited: bool) -> None:
        self._is_edited = is_edited
        self._show()

    def tell_attachments(self, attachments: list[Attachment]) -> None:
        self.attachments = attachments
        self._show()

    def attach(self, attachment: Attachment) -> None:
        self.tell_attachments([*self.attachments, attachment])

    def take_attachments(self) -> tuple[Attachment, ...]:
        taken, self.attachments = tuple(self.attachments), []
        self._show()
        return taken

    def put(self, question: str, attachments: tuple[Attachment, ...]) -> None:
        self.queue.append((question, attachments))
        self._show()

    def take(self) -> tuple[str, tuple[Attachment, ...]] | None:
        """The question that has waited longest."""
        taken = self.queue.pop(0) if self.queue else None
        self._show()
        return taken

    def take_all(self) -> list[tuple[str, tuple[Attachment, ...]]]:
        taken, self.queue = self.queue, []
        self._show()
        return taken

    def put_back(self, attachments: list[Attachment]) -> None:
        """Before what was attached since."""
        self.tell_attachments([*attachments, *self.attachments])

    def _show(self) -> None:
        lines = []
        if self._is_edited:
            lines.append(
                Content.styled("editing · Enter sends it as a branch · Esc leaves it as it was", "$text-accent")
            )
        lines += [Content.assemble(("+ ", "$text-accent"), _describe(item)) for item in self.attachments]
        if self.attachments:
            lines[-1] = Content.assemble(lines[-1], ("  Backspace in an empty prompt takes it off", "$foreground 60%"))
        lines += [Content.styled(f"waits: {visible(question)}", "$foreground 60%") for question, _ in self.queue]
        self.update(Content("\n").join(line.truncate(200, ellipsis=True) for line in lines))
        self.display = bool(lines)


def _describe(item: Attachment) -> str:
    size = f"{len(item.data) * 3 // 4:,} bytes" if item.is_image else f"{len(item.data):,} characters"
    return f"{visible(item.name)} · {size}"
