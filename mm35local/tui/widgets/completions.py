"""What a half-written word may become: commands after `/`, files after `@`. The prompt keeps the keyboard."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from mm35local.tui.plain_text import visible

_FILE = re.compile(r"(?:^|\s)@([^\s@]*)$")
_COMMAND = re.compile(r"/([a-z]*)")


@dataclass(frozen=True, slots=True)
class Word:
    """What is being written. `start` is where it begins in its line."""

    kind: str
    """"command" or "file"."""
    text: str
    start: int


def word_before(line: str, is_first_line: bool) -> Word | None:
    """The word that ends at the end of `line` (the text up to the cursor), if it can be completed."""
    if is_first_line and (match := _COMMAND.fullmatch(line)):
        return Word("command", match[1], 0)
    if match := _FILE.search(line):
        return Word("file", match[1], match.start(1) - 1)
    return None


class Completions(OptionList, can_focus=False):
    def __init__(self) -> None:
        super().__init__(markup=False)
        self.word: Word | None = None
        self.display = False

    def offer(self, word: Word | None, choices: list[tuple[str, str]]) -> None:
        """Choices are (what it becomes, what that is); none hides the list."""
        self.word = word
        self.clear_options()
        self.add_options(
            [
                Option(Content.assemble(visible(value), (f"  {visible(note)}", "$foreground 60%")), id=value)
                for value, note in choices
            ]
        )
        self.display = bool(choices)
        self.highlighted = 0 if choices else None

    @property
    def choice(self) -> str | None:
        option = self.highlighted_option if self.display else None
        return option.id if option is not None else None
