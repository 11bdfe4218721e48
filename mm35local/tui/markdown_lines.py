"""Markdown as lines of a given width: top-level blocks one after another, a blank line between them.

Rich lays out and Pygments colours; a whole answer costs a few lines of segments, where a widget a paragraph would cost
megabytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import dropwhile

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.theme import Theme
from textual.color import Color

Line = list[Segment]
Place = tuple[str, int, int]
"""Of a block: its kind, its first line and the line behind its last."""
_NARROWEST = 24
"""Cells for text at the inside of every list and quotation; what is then wider than the screen is cut there."""


@dataclass(frozen=True, slots=True)
class Block:
    """A top-level block: its place, and its tokens."""

    kind: str
    first_line: int
    end_line: int
    tokens: tuple[Token, ...]

    @property
    def place(self) -> Place:
        return self.kind, self.first_line, self.end_line


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as `#rrggbb`."""

    heading: str
    link: str
    code: str
    dim: str
    code_ground: str
    is_dark: bool

    @classmethod
    def of(cls, variables: Mapping[str, str], *, is_dark: bool) -> Palette:
        """From the variables of a Textual theme."""

        def colour(name: str) -> str:
            return Color.parse(variables[name]).hex6

        ink, paper = Color.parse(variables["foreground"]), Color.parse(variables["background"])
        dim = ink.blend(paper, 0.5).hex
        return cls(colour("primary"), colour("secondary"), colour("accent"), dim, colour("surface"), is_dark)


def parse(source: str) -> list[Block]:
    """The blocks of `source`.

    HTML is text here: with it on, tags that a model writes about would be parsed and then not be shown at all.
    """
    return list(_blocks(_parser().parse(source)))


def outline(source: str) -> tuple[list[Place], bool]:
    """Where the blocks of `source` are, and whether any link is defined apart from its use: half of `parse`."""
    found: dict[str, object] = {}
    tokens = _outliner().parse(source, found)
    return [block.place for block in _blocks(tokens)], bool(found.get("references"))


def warm_up(theme_variables: Mapping[str, str], *, is_dark: bool) -> None:
    """Make what the first answer would wait for: most of it is what Python is coloured by."""
    layout(parse("A `word`\n\n- and\n\n```python\ncode\n```"), 80, Palette.of(theme_variables, is_dark=is_dark))


@cache
def _parser() -> MarkdownIt:
    """Costs a millisecond to make: it compiles what links look like."""
    return MarkdownIt("gfm-like", {"html": False})


@cache
def _outliner() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False}).disable(["inline", "linkify", "text_join"])


def layout(blocks: Iterable[Block], width: int, palette: Palette) -> list[Line]:
    """Lines of at most `width` cells, but for very narrow widths, where they are longer."""
    lines: list[Line] = []
    for block in blocks:
        more = _block_lines(block, max(width, _NARROWEST + _deepest(block.tokens)), palette)
        if lines and more:
            lines.append([])
        lines += more
    return lines


def _blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    first = 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            opening = tokens[first]
            begin, end = opening.map or [0, 0]
            yield Block(opening.type, begin, end, tuple(tokens[first : index + 1]))
            first = index + 1


def _block_lines(block: Block, width: int, palette: Palette) -> list[Line]:
    console = _console(palette)
    lines = console.render_lines(_Page(block.tokens, palette), console.options.update(width=width), pad=False)
    if block.kind in ("fence", "code_block"):
        return lines  # the empty lines around it have its ground
    while lines and _is_empty(lines[-1]):
        lines.pop()
    return list(dropwhile(_is_empty, lines))


def _deepest(tokens: Iterable[Token]) -> int:
    """The most cells that Rich sets a text in from the left: without them it would cut what is nested deeply."""
    deepest = 0
    indents = [0]
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open", "blockquote_open"):
            # " 999. ", and a digit more where counting on needs it
            number = len(str(token.attrs.get("start", 1))) + 4 if token.type == "ordered_list_open" else 4
            indents.append(indents[-1] + number)
        elif token.type in ("bullet_list_close", "ordered_list_close", "blockquote_close"):
            indents.pop()
        deepest = max(deepest, indents[-1])
    return deepest


def _is_empty(line: Line) -> bool:
    return not any(segment.text.strip() for segment in line)


@lru_cache(maxsize=4)
def _console(palette: Palette) -> Console:
    styles = {
        "markdown.h1": Style(color=palette.heading, bold=True, underline=True),
        "markdown.h2": Style(color=palette.heading, bold=True),
        "markdown.h3": Style(color=palette.heading, bold=True),
        "markdown.h4": Style(color=palette.heading),
        "markdown.h5": Style(color=palette.heading),
        "markdown.h6": Style(color=palette.heading, italic=True),
        "markdown.code": Style(color=palette.code),
        "markdown.link": Style(color=palette.link, underline=True),
        "markdown.link_url": Style(color=palette.link, underline=True),
        "markdown.item.bullet": Style(color=palette.heading),
        "markdown.item.number": Style(color=palette.heading),
        "markdown.block_quote": Style(color=palette.dim),
        "markdown.hr": Style(color=palette.dim),
        "markdown.table.border": Style(color=palette.dim),
        "markdown.table.header": Style(color=palette.heading),
    }
    theme = Theme(styles)
    return Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", theme=theme, width=80)


class _Left(Heading):
    LEVEL_ALIGN = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _Item(ListItem):
    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        """As Rich does it, and with the dot that it leaves out."""
        width = len(f" {last_number}. ")
        lines = console.render_lines(self.elements, options.update(width=options.max_width - width), style=self.style)
        style = console.get_style("markdown.item.number")
        for place, line in enumerate(lines):
            yield Segment((f"{number}. " if place == 0 else "").rjust(width), style)
            yield from line
            yield Segment.line()


class _Code(CodeBlock):
    """On a ground of its own, in the colours of the chat's theme."""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> _Code:
        assert isinstance(markdown, _Page)
        name = (token.info or "").partition(" ")[0]
        code = cls(name or "text", "monokai" if markdown.palette.is_dark else "friendly")
        code.ground = markdown.palette.code_ground
        return code

    ground = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=1, background_color=self.ground)


class _Page(Markdown):
    elements = {  # noqa: RUF012
        **Markdown.elements,
        "heading_open": _Left,
        "fence": _Code,
        "code_block": _Code,
        "list_item_open": _Item,
    }

    def __init__(self, tokens: Sequence[Token], palette: Palette) -> None:
        # Rich's own constructor would make a parser and parse: a millisecond a block, for tokens that are here.
        self.markup, self.parsed = "", [_harmless(token) for token in tokens]
        self.code_theme, self.justify, self.style, self.hyperlinks = "monokai", None, "none", True
        self.inline_code_lexer, self.inline_code_theme = None, "monokai"
        self.palette = palette


def _harmless(token: Token) -> Token:
    """Links that are no web addresses become their text."""
    if token.children:
        token.children = [said for child in token.children for said in _in_place(child)]
    for child in token.children or ():
        if child.type == "link_open" and not is_web(str(child.attrs.get("href", ""))):
            child.attrs["href"] = ""
    return token


def _in_place(child: Token) -> list[Token]:
    """An image as a link on its name: Rich would show it before the paragraph, and cut as much off the line."""
    if child.type != "image":
        return [child]
    name = Token("text", "", 0, content=f"🌆 {child.content}")
    address = Token("link_open", "a", 1, attrs={"href": child.attrs.get("src", "")})
    return [address, name, Token("link_close", "a", -1)]


def is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))
