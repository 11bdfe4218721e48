"""The turns that are one code for every client whose requests have OpenAI's shape."""

from __future__ import annotations

from typing import Any

from tests.e2e.clients import turns


class OpenAITurns:
    """A client says how it asks (`_ask`) and how it reads calls (`_calls`)."""

    FORCED = "required"
    """The word of its `tool_choice` for "some tool"."""

    def plain(self) -> None:
        turns.check(self._ask(turns.OPPOSITE).content, "cold")

    def tools_auto(self) -> None:
        self._calls(self._ask(turns.CALL_ONE, tools=turns.openai_tools(turns.PHONE)), "Clara")

    def tools_required(self) -> None:
        tools = turns.openai_tools(turns.PHONE)
        self._calls(self._ask(turns.CALL_ONE, tools=tools, tool_choice=self.FORCED), "Clara")

    def tools_named(self) -> None:
        tools = turns.openai_tools(turns.PHONE, turns.WEATHER)
        choice = {"type": "function", "function": {"name": "phone"}}
        self._calls(self._ask(turns.CALL_ONE, tools=tools, tool_choice=choice), "Clara")

    def image(self) -> None:
        turns.check(self._ask(turns.seen()).content, "red")

    def _ask(self, question: object, **more: Any) -> Any:
        """The client's own message, of its own type."""
        raise NotImplementedError

    def _calls(self, message: Any, *names: str) -> None:
        """Checks that `message` calls PHONE once for each name, in order."""
        raise NotImplementedError
