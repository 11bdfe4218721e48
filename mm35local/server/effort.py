"""How much the model is to think: one switch of two positions, under every name that clients have for it.

A request may use several names; the first in the order of `_READERS` that says something decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator

from mm35local.chat.messages import Effort

_LEVELS = {
    "none": Effort.NONE,
    "off": Effort.NONE,
    "minimal": Effort.NONE,
    "low": Effort.NONE,
    "medium": Effort.HIGH,
    "high": Effort.HIGH,
    "xhigh": Effort.HIGH,
    "max": Effort.HIGH,
}
Level = Literal["none", "off", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Levelled(BaseModel):
    """OpenAI's `reasoning`, Anthropic's `output_config`."""

    effort: Level | None = None
    enabled: bool | None = None
    format: Any = None
    """Anthropic's place for what other wires call response_format."""


class _Thinking(BaseModel):
    type: Literal["enabled", "disabled", "adaptive"]


def _thinking(given: object) -> object:
    return {"type": "enabled" if given else "disabled"} if isinstance(given, bool) else given


class _TemplateArguments(BaseModel):
    reasoning_effort: Level | None = None
    enable_thinking: bool | None = None
    thinking: bool | None = None


class EffortFields(BaseModel):
    reasoning_effort: Level | None = None
    reasoning: _Levelled | None = None
    reasoning_mode: Literal["instant", "deep"] | None = None
    """Mistral's."""
    thinking: Annotated[_Thinking | None, BeforeValidator(_thinking)] = None
    """Anthropic's, and of others who copied the name."""
    output_config: _Levelled | None = None
    chat_template_kwargs: _TemplateArguments | None = None
    enable_thinking: bool | None = None

    @property
    def effort(self) -> Effort:
        return next((found for read in _READERS if (found := read(self)) is not None), Effort.NONE)


def _level(level: str | None) -> Effort | None:
    return None if level is None else _LEVELS[level]


def _switch(is_on: bool | None) -> Effort | None:
    return None if is_on is None else Effort.HIGH if is_on else Effort.NONE


def _of_levelled(group: _Levelled | None) -> Effort | None:
    return None if group is None else _level(group.effort) or _switch(group.enabled)


def _of_mode(asked: EffortFields) -> Effort | None:
    return None if asked.reasoning_mode is None else _switch(asked.reasoning_mode == "deep")


def _of_thinking(asked: EffortFields) -> Effort | None:
    """Anthropic's `thinking` is the switch; its `output_config.effort` only says how much of it."""
    if asked.thinking is None:
        return None
    if asked.thinking.type == "adaptive":
        return _of_levelled(asked.output_config) or Effort.HIGH
    return _switch(asked.thinking.type == "enabled")


def _of_template(asked: EffortFields) -> Effort | None:
    given = asked.chat_template_kwargs
    if given is None:
        return None
    return _level(given.reasoning_effort) or _switch(given.enable_thinking) or _switch(given.thinking)


_READERS: tuple[Callable[[EffortFields], Effort | None], ...] = (
    lambda asked: _level(asked.reasoning_effort),
    lambda asked: _of_levelled(asked.reasoning),
    _of_mode,
    _of_thinking,
    _of_template,
    lambda asked: _switch(asked.enable_thinking),
)
