"""Token ids of an answer to deltas: text, thinking, tool calls.

Invariants: parts are told apart by control token *ids*, so no text can imitate them and none leaks as text;
however the ids are cut into calls, the deltas concatenate to the same; nothing the model said is dropped but white
space around a call's arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Protocol

from mm35local.chat.call_reader import CallReader
from mm35local.chat.deltas import Delta, TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.detokenizer import Detokenizer
from mm35local.chat.vocabulary import Vocabulary

__all__ = ["Delta", "MistralParser", "Parser", "TextDelta", "TextParser", "ThinkingDelta", "ToolCallDelta"]


class Parser(Protocol):
    """Reads one answer."""

    @property
    def num_thinking_tokens(self) -> int:
        """Tokens so far that are thinking, its delimiters among them."""
        ...

    @property
    def is_text(self) -> bool:
        """Was the last token neither thinking nor part of a call?"""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What was odd about the answer so far."""
        ...

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]: ...

    def flush(self, *, is_cut: bool = False) -> Sequence[Delta]:
        """The answer ended, perhaps in the middle of something; `is_cut`: because there was no room for more."""
        ...


class TextParser:
    """For models without a protocol of their own: everything is text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._detokenizer = Detokenizer(vocabulary)
        self.num_thinking_tokens = 0
        self.is_text = True
        self.warnings: Sequence[str] = ()

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]:
        text = self._detokenizer.feed(token_ids)
        return (TextDelta(text),) if text else ()

    def flush(self, *, is_cut: bool = False) -> Sequence[Delta]:
        text = self._detokenizer.flush()
        return (TextDelta(text),) if text else ()


class _State(Enum):
    TEXT = auto()
    THINKING = auto()
    CALL_NAME = auto()
    CALL_ARGUMENTS = auto()


class MistralParser:
    """`[THINK]…[/THINK]text[TOOL_CALLS]name[ARGS]{json}`, each part optional and repeatable."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._control_ids = vocabulary.control_ids
        self._detokenizer = Detokenizer(vocabulary)
        self._state = _State.TEXT
        self._name = ""
        self.num_thinking_tokens = 0
        self.warnings: list[str] = []
        self._calls = CallReader(self.warnings)
        transitions: dict[str, Callable[[], None]] = {
            "[THINK]": self._begin_thinking,
            "[/THINK]": self._begin_text,
            "[TOOL_CALLS]": self._begin_call,
            "[ARGS]": self._begin_arguments,
        }
        self._transitions = {
            vocabulary.controls[literal]: begin
            for literal, begin in transitions.items()
            if literal in vocabulary.controls
        }
        self._deltas: list[Delta] = []

    @property
    def is_text(self) -> bool:
        return self._state is _State.TEXT

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]:
        run: list[int] = []
        for token_id in token_ids:
            was_thinking = self._state is _State.THINKING
            if token_id not in self._control_ids:
                run.append(token_id)
            else:
                self._say(self._detokenizer.feed(run))
                run.clear()
                if begin := self._transitions.get(token_id):
                    begin()
            self.num_thinking_tokens += was_thinking or self._state is _State.THINKING
        self._say(self._detokenizer.feed(run))
        return self._taken()

    def flush(self, *, is_cut: bool = False) -> Sequence[Delta]:
        self._leave(is_cut=is_cut)
        self._state = _State.TEXT
        return self._taken()

    def _begin_thinking(self) -> None:
        self._leave()
        self._state = _State.THINKING

    def _begin_text(self) -> None:
        self._leave()
        self._state = _State.TEXT

    def _begin_call(self) -> None:
        self._leave()
        self._state = _State.CALL_NAME

    def _begin_arguments(self) -> None:
        """Only after a name does [ARGS] mean anything."""
        if self._state is not _State.CALL_NAME:
            return
        self._say(self._detokenizer.flush())
        self._calls.begin(self._name)
        self._name = ""
        self._state = _State.CALL_ARGUMENTS

    def _leave(self, *, is_cut: bool = False) -> None:
        """Ends the present part; a call that never got to its arguments was text."""
        self._say(self._detokenizer.flush())
        if self._state is _State.CALL_ARGUMENTS:
            self._deltas += self._calls.end(is_cut=is_cut)
        if self._name:
            self.warnings.append(f"the call of {self._name[:100]!r} never got to its arguments")
            self._deltas.append(TextDelta(self._name))
            self._name = ""

    def _say(self, text: str) -> None:
        if not text:
            return
        match self._state:
            case _State.TEXT:
                self._deltas.append(TextDelta(text))
            case _State.THINKING:
                self._deltas.append(ThinkingDelta(text))
            case _State.CALL_NAME:
                self._name += text
            case _State.CALL_ARGUMENTS:
                self._deltas += self._calls.arguments(text)

    def _taken(self) -> Sequence[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas
