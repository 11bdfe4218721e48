"""The tools that an answer calls, a card each: its name, and its arguments as they come."""

from __future__ import annotations

import json
from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from mm35local.tui.plain_text import visible
from mm35local.tui.records import ToolCall


class ToolCalls(Static):
    def __init__(self, calls: Sequence[ToolCall] = ()) -> None:
        super().__init__(markup=False)
        self._shown: tuple[ToolCall, ...] = ()
        self.display = False
        self.tell(calls)

    def tell(self, calls: Sequence[ToolCall]) -> None:
        if tuple(calls) == self._shown:
            return
        self._shown = tuple(calls)
        self.display = bool(calls)
        self.update(Content("\n\n").join([_card(call) for call in calls]))


def _card(call: ToolCall) -> Content:
    head = Content.assemble(("⚙ ", "$text-accent"), (visible(call.name), "bold"))
    return Content("\n").join([head, *(Content(f"  {line}") for line in visible(pretty(call.arguments)).splitlines())])


def pretty(arguments: str) -> str:
    """JSON with an indent; what is not whole yet stays as it came."""
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
