"""Markdown of a model, laid out block by block as it comes: lines, not widgets, so that an answer costs kilobytes.

Invariant: blocks before the last one are laid out once for a width; adding text touches only what may still change,
and however long the last block is, laying it out takes no more than a share of the time.
"""

from __future__ import annotations

import time

from textual.events import Click
from textual.theme import Theme

from mm35local.tui.growing_fence import GrowingFence
from mm35local.tui.markdown_lines import Block, Line, Palette, Place, is_web, layout, outline, parse
from mm35local.tui.plain_text import visible
from mm35local.tui.widgets.lines_view import LinesView


class MarkdownView(LinesView):
    """`add` takes text as it comes from the model, `catch_up` shows what has come; `settle` says that it is whole."""

    REST = 6.0
    """Seconds without laying out, for each second that it took: a long list would keep a core busy."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._source = visible(text)
        self._sealed: list[Place] = []
        """Places of the blocks that are laid out for good."""
        self._tail_line = 0
        """The line of the source where the last block begins."""
        self._num_sealed_lines = 0
        self._fence = GrowingFence()
        self._is_growing = False
        self._is_behind = False
        self._rests_until = 0.0
        self._palette: Palette | None = None

    @property
    def source(self) -> str:
        return self._source

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._on_theme)

    def on_unmount(self) -> None:
        self.app.theme_changed_signal.unsubscribe(self)  # it would keep the view for good

    def add(self, text: str) -> None:
        self._source += visible(text)
        self._is_growing = self._is_behind = True
        self.catch_up()

    def catch_up(self) -> None:
        """Lay out what was added, unless the last time took so long that it still rests."""
        if self._is_behind and self._width and time.monotonic() >= self._rests_until:
            began, first, height = time.monotonic(), self._num_sealed_lines, self._height
            self._lay_out_tail()
            self._rests_until = time.monotonic() + self.REST * (time.monotonic() - began)
            self._tell_grown(first, height)

    def update(self, text: str) -> None:
        self._source = visible(text)
        self._is_growing = False
        self._forget()
        self.refresh(layout=True)

    def settle(self) -> None:
        """Lay it out again if what came last changed what was laid out before.

        A half line may open a block and its other half take that back; a link may be defined below its use.
        """
        places, has_references = outline(self._source)
        line = self._tail_line
        tail = [(kind, first + line, end + line) for kind, first, end in outline(self._tail)[0]]
        self._is_growing = False
        if has_references or places != self._sealed + tail:
            self._forget()
        elif self._width and (self._is_behind or self._fence.is_patched):
            self._lay_out_tail()
        else:
            return
        self.refresh(layout=True)

    def rest(self) -> None:
        """Keep the text and the height only; it is laid out again when it is painted or read."""
        if not self._is_growing:
            height = self._height
            self._forget()
            self._height = height

    # --- layout ---

    def _lay_out(self) -> None:
        if self._width and not self.laid_out:
            self._lay_out_tail()

    def _forget(self) -> None:
        super()._forget()
        self._sealed, self._tail_line, self._num_sealed_lines = [], 0, 0
        self._fence = GrowingFence()

    @property
    def _tail(self) -> str:
        """The source of what may still change."""
        return "\n".join(self._source.split("\n")[self._tail_line :])

    def _tail_blocks(self) -> list[Block]:
        """What may still change, with lines of the whole source."""
        line = self._tail_line
        blocks = parse(self._tail)
        return [Block(block.kind, block.first_line + line, block.end_line + line, block.tokens) for block in blocks]

    def _lay_out_tail(self) -> None:
        self._is_behind = False
        blocks = self._tail_blocks()
        del self.laid_out[self._num_sealed_lines :]
        if blocks:
            self._lay_out_blocks(blocks)
        self._height = len(self.laid_out)

    def _lay_out_blocks(self, blocks: list[Block]) -> None:
        """All but the last one for good."""
        *done, last = blocks
        is_growing_fence = self._is_growing and last.kind == "fence"
        if done or not is_growing_fence:
            self._fence = GrowingFence()
        self._append(layout(done, self._width, self._colours()))
        self._sealed += [block.place for block in done]
        self._num_sealed_lines, self._tail_line = len(self.laid_out), last.first_line
        if is_growing_fence:
            self._append(self._fence.lines(last, self._width, self._colours()))
        else:
            self._append(layout([last], self._width, self._colours()))

    def _append(self, lines: list[Line]) -> None:
        if lines and self.laid_out:
            self.laid_out.append([])
        self.laid_out += lines

    def _colours(self) -> Palette:
        if self._palette is None:
            theme = self.app.current_theme
            self._palette = Palette.of(self.app.theme_variables, is_dark=theme.dark)
        return self._palette

    def _on_theme(self, _theme: Theme) -> None:
        self._palette = None
        self._forget()
        self.refresh(layout=True)

    def on_click(self, event: Click) -> None:
        link = event.style.link
        if link and is_web(link):
            event.stop()
            self.app.open_url(link)
