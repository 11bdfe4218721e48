"""An answer as a row of blocks - thinking, text, calls - for the wires that tell it so.

Invariant: at most one block is open; a block is opened once, grown, and closed once, in the order of `all`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from mm35local.chat.parser import TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.scores import ScoredToken
from mm35local.chat.turn import Done, TurnEvent
from mm35local.server.logprobs import PendingScores


class Kind(Enum):
    THINKING = auto()
    TEXT = auto()
    CALL = auto()


@dataclass(slots=True, eq=False)
class Block:
    index: int
    kind: Kind
    call_index: int = -1
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    scores: list[ScoredToken] = field(default_factory=list)
    """Of a text's tokens, where they were asked for."""

    @property
    def text(self) -> str:
        """The text, the thinking, or a call's arguments."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Opened:
    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    block: Block
    piece: str
    scores: Sequence[ScoredToken] = ()


@dataclass(frozen=True, slots=True)
class Closed:
    block: Block


BlockEvent = Opened | Grown | Closed


class Blocks:
    def __init__(self) -> None:
        self.all: list[Block] = []
        self._open: Block | None = None
        self._scores = PendingScores()

    def take(self, event: TurnEvent) -> Iterator[BlockEvent]:
        self._scores.feed(event)
        match event:
            case ThinkingDelta():
                yield from self._grow(Block(len(self.all), Kind.THINKING), event.text)
            case TextDelta():
                yield from self._grow(Block(len(self.all), Kind.TEXT), event.text)
            case ToolCallDelta():
                block = Block(len(self.all), Kind.CALL, event.index, event.id, event.name)
                yield from self._grow(block, event.arguments)
            case Done():
                yield from self._close()

    def _grow(self, block: Block, piece: str) -> Iterator[BlockEvent]:
        """`block` is what to open unless one like it is open already."""
        if self._open is None or (self._open.kind, self._open.call_index) != (block.kind, block.call_index):
            yield from self._close()
            self.all.append(block)
            self._open = block
            yield Opened(block)
        if piece:
            self._open.pieces.append(piece)
            scores = self._scored(self._open)
            yield Grown(self._open, piece, scores)

    def _close(self) -> Iterator[BlockEvent]:
        if self._open is not None:
            self._scored(self._open)
            yield Closed(self._open)
            self._open = None

    def _scored(self, block: Block) -> Sequence[ScoredToken]:
        scores = self._scores.take() if block.kind is Kind.TEXT else []
        block.scores += scores
        return scores
