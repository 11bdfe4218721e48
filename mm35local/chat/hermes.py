"""Calls as many other models write them, in their text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Invariants: however the ids are cut, the deltas concatenate to the same; what is no call comes back as the text it
was, with a warning; only white space around calls is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import Any

from mm35local.chat.deltas import Delta, TextDelta, ToolCallDelta
from mm35local.chat.detokenizer import Detokenizer
from mm35local.chat.json_object import ObjectEnd
from mm35local.chat.unicode import legal_json
from mm35local.chat.vocabulary import Vocabulary

OPEN, CLOSE = "<tool_call>", "</tool_call>"
# The end of a text that a call may follow: white space, and a beginning of its opening.
_UNDECIDED = re.compile(r"\s*(?:" + "|".join(re.escape(OPEN[:n]) for n in range(len(OPEN) - 1, 0, -1)) + r")?\Z")


class _State(Enum):
    TEXT = auto()
    BEFORE = auto()
    OBJECT = auto()
    AFTER = auto()


class HermesParser:
    """Implements `chat.parser.Parser`. The two markers may be control tokens or plain text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._detokenizer = Detokenizer(vocabulary)
        self._markers = {id_: text for text, id_ in vocabulary.controls.items() if text in (OPEN, CLOSE)}
        self._state = _State.TEXT
        self._held = ""
        """Read, and not decided yet."""
        self._body = ""
        """The object so far."""
        self._end = ObjectEnd()
        self._num_calls = 0
        self.num_thinking_tokens = 0
        self.warnings: list[str] = []

    @property
    def is_text(self) -> bool:
        return self._state is _State.TEXT

    def feed(self, token_ids: Iterable[int]) -> Sequence[Delta]:
        for token_id in token_ids:
            self._held += self._markers.get(token_id) or self._detokenizer.feed((token_id,))
        return list(self._read())

    def flush(self, *, is_cut: bool = False) -> Sequence[Delta]:
        self._held += self._detokenizer.flush()
        deltas = [*self._read(), *self._rest(is_cut=is_cut)]
        self._state, self._held, self._body = _State.TEXT, "", ""
        return deltas

    def _read(self) -> Iterator[Delta]:
        """As far as what is held decides."""
        steps = {
            _State.TEXT: self._text,
            _State.BEFORE: self._before,
            _State.OBJECT: self._object,
            _State.AFTER: self._after,
        }
        state = None
        while state is not self._state and self._held:
            state = self._state
            yield from steps[state]()

    def _text(self) -> Iterator[Delta]:
        text, found, rest = self._held.partition(OPEN)
        if found:
            self._state, self._held, text = _State.BEFORE, rest, text.rstrip()
        else:
            undecided = _UNDECIDED.search(text)
            length = undecided.start() if undecided else len(text)
            text, self._held = text[:length], text[length:]
        if text:
            yield TextDelta(text)

    def _before(self) -> Iterator[Delta]:
        if not (rest := self._held.lstrip()):
            return
        if rest[0] == "{":
            self._state, self._held, self._body, self._end = _State.OBJECT, rest, "", ObjectEnd()
        else:
            self._state = _State.TEXT
            self.warnings.append("a call that is no JSON object: read as text")
            yield TextDelta(OPEN)

    def _object(self) -> Iterator[Delta]:
        length = self._end.find(self._held)
        self._body += self._held[:length]
        self._held = "" if length is None else self._held[length:]
        if length is not None:
            self._state = _State.AFTER
            yield from self._call(self._body)

    def _after(self) -> Iterator[Delta]:
        """Some models forget the end of a call."""
        rest = self._held.lstrip()
        if rest.startswith(CLOSE):
            self._held = rest.removeprefix(CLOSE)
            self._state = _State.TEXT
        elif not CLOSE.startswith(rest):
            self._state = _State.TEXT
        yield from ()

    def _call(self, body: str) -> Iterator[Delta]:
        call = _read_call(body)
        if call is None:
            self.warnings.append("a call without a name or arguments: read as text")
            yield TextDelta(OPEN + body + CLOSE)
            return
        index, self._num_calls = self._num_calls, self._num_calls + 1
        yield ToolCallDelta(index, name=call[0])
        yield ToolCallDelta(index, arguments=call[1])

    def _rest(self, *, is_cut: bool) -> Iterator[Delta]:
        match self._state:
            case _State.TEXT:
                if self._held.strip() or (self._held and not self._num_calls):
                    yield TextDelta(self._held)
            case _State.BEFORE:
                yield TextDelta(OPEN + self._held)
            case _State.OBJECT:
                self.warnings.append("a call was cut off" if is_cut else "a call ended before its arguments did")
                closed = self._body + self._end.missing
                if not is_cut and _read_call(closed) is not None:
                    yield from self._call(closed)
                else:
                    yield TextDelta(OPEN + self._body)
            case _State.AFTER:
                pass


def _read_call(body: str) -> tuple[str, str] | None:
    """Name and arguments as JSON text; some models write the arguments as a string of JSON."""
    try:
        call: Any = json.loads(legal_json(body))
        arguments = call.get("arguments", call.get("parameters", {}))
        arguments = json.loads(legal_json(arguments)) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None
    name = call.get("name")
    if not (isinstance(name, str) and name.strip() and isinstance(arguments, dict)):
        return None
    return name.strip(), json.dumps(arguments, ensure_ascii=False)
