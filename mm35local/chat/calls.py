"""An assistant's calls and their results while a history is read: which result answers which call.

Invariant: every call gets exactly one result, and the results stand in the order of the calls.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from mm35local.chat.messages import Message, Role
from mm35local.chat.tools import ToolCall
from mm35local.chat.unicode import without_half_characters

NO_RESULT = "No result: the call was not carried out."
UNKNOWN = "unknown"


@dataclass(slots=True)
class OpenCalls:
    """The calls of the last assistant message, whose results may still come."""

    calls: list[ToolCall] = field(default_factory=list)
    given_ids: list[str] = field(default_factory=list)
    """As the client wrote them; `calls` has the ids of the prompt."""
    results: dict[int, Message] = field(default_factory=dict)
    """By the call's place, in the order they came."""

    def add(self, call: ToolCall, given_id: str) -> None:
        self.calls.append(call)
        self.given_ids.append(given_id)

    @property
    def first_unanswered(self) -> int | None:
        return next((i for i in range(len(self.calls)) if i not in self.results), None)

    def unanswered(self, given_id: str) -> int | None:
        """The first call of that id which has no result yet."""
        return next((i for i, id_ in enumerate(self.given_ids) if id_ == given_id and i not in self.results), None)

    def answer(self, place: int, result: Message) -> None:
        self.results[place] = replace(
            result, tool_call_id=self.calls[place].id, name=self.calls[place].name, thinking="", tool_calls=()
        )

    def in_order(self) -> tuple[Message, ...]:
        """One result a call; those that never came say so."""
        return tuple(
            self.results.get(i) or Message(Role.TOOL, NO_RESULT, tool_call_id=call.id, name=call.name)
            for i, call in enumerate(self.calls)
        )

    @property
    def is_moved(self) -> bool:
        return list(self.results) != sorted(self.results)


def legal_call(call: ToolCall, id_: str) -> ToolCall:
    """`call` with a name, and arguments that are a JSON object: anything else becomes its one member."""
    return ToolCall(id_, without_half_characters(call.name) or UNKNOWN, _legal_arguments(call.arguments))


def _legal_arguments(text: str) -> str:
    if not text.strip():
        return "{}"
    try:
        found = json.loads(text)
        written = json.dumps(found, ensure_ascii=False)
    except (ValueError, RecursionError):
        found, written = None, ""
    if not isinstance(found, dict):
        return json.dumps({"arguments": without_half_characters(text)}, ensure_ascii=False)
    whole = without_half_characters(written)
    return text if whole == written else whole
