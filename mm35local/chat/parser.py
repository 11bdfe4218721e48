"""Token ids of an answer to deltas: text, thinking, tool calls.

Invariants: parts are told apart by control token *ids*, so no text can imitate them and none leaks as text;
however the ids are cut into calls, the deltas concatenate to the same; nothing the model said is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from mm35local.chat.detokenizer import Detokenizer
from mm35local.chat.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of call `index` (0 is the answer's first): its whole name once, then its arguments as they come."""

    index: int
    name: str = ""
    arguments: str = ""


Delta = TextDelta | ThinkingDelta | ToolCallDelta


class Parser(Protocol):
    """Reads one answer."""

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]: ...

    def flush(self) -> Sequence[Delta]:
        """The answer ended, perhaps in the middle of something."""
        ...


class TextParser:
    """For models without a protocol of their own: everything is text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._detokenizer = Detokenizer(vocabulary)

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]:
        text = self._detokenizer.feed(token_ids)
        return (TextDelta(text),) if text else ()

    def flush(self) -> Sequence[Delta]:
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
        self._call_index = -1
        self._name = ""
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

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]:
        run: list[int] = []
        for token_id in token_ids:
            if token_id not in self._control_ids:
                run.append(token_id)
                continue
            self._say(self._detokenizer.feed(run))
            run.clear()
            if begin := self._transitions.get(token_id):
                begin()
        self._say(self._detokenizer.feed(run))
        return self._taken()

    def flush(self) -> Sequence[Delta]:
        self._leave()
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
        self._call_index += 1
        self._deltas.append(ToolCallDelta(self._call_index, name=self._name))
        self._name = ""
        self._state = _State.CALL_ARGUMENTS

    def _leave(self) -> None:
        """Ends the present part; a call that never got to its arguments was text."""
        self._say(self._detokenizer.flush())
        if self._name:
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
                self._deltas.append(ToolCallDelta(self._call_index, arguments=text))

    def _taken(self) -> Sequence[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas
