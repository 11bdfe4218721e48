"""Markdown of a model: streamed block by block, HTML shown as text, links opened only if they are web addresses."""

from __future__ import annotations

import asyncio

from markdown_it import MarkdownIt
from textual import on
from textual.widget import Widget
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock

from mm35local.tui.plain_text import visible


def _parser() -> MarkdownIt:
    # With HTML on, tags that a model writes about would be parsed and then not be shown at all.
    return MarkdownIt("gfm-like", {"html": False})


class MarkdownView(Markdown):
    """Only the last block is built again when text is added; `add` takes text as it comes from the model."""

    def __init__(self, text: str = "") -> None:
        super().__init__(visible(text), parser_factory=_parser, open_links=False)
        self._adding = asyncio.Lock()

    async def settle(self) -> None:
        """The text is whole: lay it out again if what came last changed what was laid out before.

        A half line may open a block and its other half take that back; a link may be defined below its use.
        """
        async with self._adding:
            found: dict[str, object] = {}
            tokens = _parser().parse(self.source, found)
            whole = [(token.type, *token.map) for token in tokens if token.level == 0 and token.map]
            shown = [(block.name, *block.source_range) for block in self.query_children(MarkdownBlock)]
            if whole != shown or found.get("references"):
                await self.update(self.source)

    async def add(self, text: str) -> None:
        # An append looks for its last block before it waits for its turn; two at once would lose one.
        async with self._adding:
            await self.append(visible(text))
            if self.children:
                _drop_tooltips(self.children[-1])

    @on(Markdown.TableOfContentsUpdated)
    def _built(self) -> None:
        for table in self.query_children("MarkdownTable"):
            _drop_tooltips(table)

    @on(Markdown.LinkClicked)
    def _open(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        if event.href.startswith(("http://", "https://")):
            self.app.open_url(event.href)


def _drop_tooltips(block: Widget) -> None:
    """Textual reads the tooltips of table cells as markup, so `[/x]` in one would end the program."""
    for cell in block.query(".cell"):
        cell.tooltip = None
