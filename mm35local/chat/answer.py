"""What a model said in one turn so far: parsed, cut at the first stop string, its calls numbered and named.

Invariant: the deltas concatenate to `text`, `thinking` and `tool_calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, zip_longest

from mm35local.chat.call_ids import answer_seed, hashed
from mm35local.chat.deltas import Delta, TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.parser import Parser
from mm35local.chat.scores import ScoredToken, Scores, scored
from mm35local.chat.stops import StopStrings
from mm35local.chat.tools import ToolCall
from mm35local.chat.vocabulary import Vocabulary
from mm35local.types import TokenLogprobs


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Answer:
    """`feed` the tokens of each step, then `flush` once."""

    def __init__(
        self,
        parser: Parser,
        vocabulary: Vocabulary,
        stops: Sequence[str],
        offered: Sequence[str],
        prompt: Sequence[int],
    ) -> None:
        """`offered` are the names of tools that may be called; the calls' ids are made of `prompt`, token ids."""
        self._parser = parser
        self._stops = StopStrings(stops)
        self._offered = offered
        self._prompt = prompt
        self._vocabulary = vocabulary
        self._warnings: list[str] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[_Call] = []
        self.num_tokens = 0
        """Fed, none after a stop string."""

    @cached_property
    def _seed(self) -> str:
        """Made for the first call: it takes a while, and most answers have none."""
        return answer_seed(self._prompt)

    @property
    def stop(self) -> str | None:
        """The stop string that was found. Nothing comes after it."""
        return self._stops.found

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_found

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def thinking(self) -> str:
        return "".join(self._thoughts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._calls)

    @property
    def num_thinking_tokens(self) -> int:
        return self._parser.num_thinking_tokens

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self._warnings, *self._parser.warnings)

    def feed(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs] = ()) -> list[Delta | Scores]:
        """What these say; no token after a stop string counts. `logprobs`: of each, or none."""
        if self._stops.has_any or logprobs:
            return self._feed_one_by_one(token_ids, logprobs)
        self.num_tokens += len(token_ids)
        return [*merged(self._say(self._parser.feed(token_ids)))]

    def _feed_one_by_one(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> list[Delta | Scores]:
        """It matters which token it was."""
        deltas: list[Delta] = []
        tokens: list[ScoredToken] = []
        for token_id, its_logprobs in zip_longest(token_ids, logprobs):
            self.num_tokens += 1
            deltas += self._say(self._parser.feed((token_id,)))
            if its_logprobs is not None and self._parser.is_text and self._vocabulary.token_bytes(token_id):
                tokens.append(scored(token_id, its_logprobs, self._vocabulary))
            if self.is_stopped:
                break
        scores = [Scores(tuple(tokens))] if tokens else []
        return [*scores, *merged(deltas)]

    def flush(self, *, is_cut: bool) -> list[Delta]:
        """The end of the tokens; `is_cut`: the model had more to say."""
        return merged([*self._say(self._parser.flush(is_cut=is_cut)), *self._text(self._stops.flush())])

    def _say(self, deltas: Sequence[Delta]) -> Iterator[Delta]:
        for delta in deltas:
            if self.is_stopped:
                return
            match delta:
                case TextDelta(text):
                    yield from self._text(self._stops.feed(text))
                case ThinkingDelta(text):
                    self._thoughts.append(text)
                    yield delta
                case ToolCallDelta():
                    yield from self._call(delta)

    def _text(self, text: str) -> Iterator[Delta]:
        if text:
            self._texts.append(text)
            yield TextDelta(text)

    def _call(self, delta: ToolCallDelta) -> Iterator[Delta]:
        if not self._offered:
            if delta.name:
                self._warnings.append(f"the model called {delta.name[:100]!r}, but may call nothing: read as text")
            yield from self._text(self._stops.feed(delta.name + delta.arguments))
            return
        if delta.name:
            yield from self._text(self._stops.flush())
            if delta.name not in self._offered:
                self._warnings.append(f"the model called {delta.name[:100]!r}, which was not offered")
            self._calls.append(_Call(hashed(self._seed, delta.index), delta.name))
            yield ToolCallDelta(delta.index, delta.name, id=self._calls[-1].id)
        if delta.arguments:
            self._calls[-1].arguments.append(delta.arguments)
            yield ToolCallDelta(delta.index, arguments=delta.arguments)


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """One delta where several of a kind follow each other: a step's tokens are one message to the client."""
    return [_one(list(run)) for _, run in groupby(deltas, _kind)]


def _kind(delta: Delta) -> tuple[type, int, str]:
    return (type(delta), delta.index, delta.name) if isinstance(delta, ToolCallDelta) else (type(delta), 0, "")


def _one(run: Sequence[Delta]) -> Delta:
    if len(run) == 1:
        return run[0]
    match run[0]:
        case TextDelta():
            return TextDelta("".join(delta.text for delta in run if isinstance(delta, TextDelta)))
        case ThinkingDelta():
            return ThinkingDelta("".join(delta.text for delta in run if isinstance(delta, ThinkingDelta)))
        case ToolCallDelta(index):
            pieces = (delta.arguments for delta in run if isinstance(delta, ToolCallDelta))
            return ToolCallDelta(index, arguments="".join(pieces))
