"""The dialect of any other GGUF: its own jinja template, sandboxed, with user text unable to forge control tokens.

Invariant: the same conversation (its clock included) gives the same parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mm35local.chat.literals import ControlLiterals, absent_marker
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.parser import Parser, TextParser
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError, RequestError

_EFFORT_NAMES = ("enable_thinking", "reasoning_effort")
# What an expression of a template can raise beside jinja's own errors.
_RUNTIME_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)


class _Refused(TemplateError):
    """The template called raise_exception."""


class TemplateDialect:
    """Implements `chat.dialect.Dialect`."""

    def __init__(self, vocabulary: Vocabulary, source: str, *, adds_bos: bool, name: str) -> None:
        """`source` is the template, `adds_bos` the file's wish for a begin token. Raises ModelFileError."""
        self._vocabulary = vocabulary
        self._source = source
        self._literals = ControlLiterals(vocabulary.controls)
        self._bos = vocabulary.named.get("bos") if adds_bos else None
        try:
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise ModelFileError(
                name, f"line {error.lineno} of its chat template: {error.message}", "choose another build of the model"
            ) from error

    @property
    def has_effort(self) -> bool:
        return any(name in self._source for name in _EFFORT_NAMES)

    def render(self, conversation: Conversation) -> tuple[str | int, ...]:
        messages = normalize(conversation.messages)
        try:
            parts = self._render(messages, conversation)
        except _Refused as refused:
            if messages[0].role is not Role.SYSTEM:
                raise _refusal(refused) from refused
            parts = self._render_folded(messages, conversation)
        is_begun = bool(parts) and parts[0] == self._bos
        return parts if self._bos is None or is_begun else (self._bos, *parts)

    def parser(self) -> Parser:
        return TextParser(self._vocabulary)

    def _render_folded(self, messages: tuple[Message, ...], conversation: Conversation) -> tuple[str | int, ...]:
        """For templates that know no system role: its text opens the first user message."""
        as_user = Message(Role.USER, messages[0].content)
        try:
            return self._render(normalize((as_user, *messages[1:])), conversation)
        except _Refused as refused:
            raise _refusal(refused) from refused

    def _render(self, messages: Sequence[Message], conversation: Conversation) -> tuple[str | int, ...]:
        """A last assistant message follows the generation prompt, for the model to continue."""
        continued = messages[-1].content if messages[-1].role is Role.ASSISTANT else ""
        told = messages[:-1] if messages[-1].role is Role.ASSISTANT else messages
        texts = [text for message in told for text in (message.content, message.thinking)]
        marker = absent_marker([self._source, *texts, *self._vocabulary.controls])
        rendered = self._text([self._variables(message, marker) for message in told], conversation)
        parts = self._literals.split(rendered, marker)
        return (*parts, continued) if continued else parts

    def _variables(self, message: Message, marker: str) -> dict[str, str]:
        variables = {"role": message.role.value, "content": self._literals.shield(message.content, marker)}
        if message.thinking:
            variables["reasoning_content"] = self._literals.shield(message.thinking, marker)
        return variables

    def _text(self, messages: list[dict[str, str]], conversation: Conversation) -> str:
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self._spelling("bos"),
                eos_token=self._spelling("eos"),
                enable_thinking=conversation.effort is Effort.HIGH,
                reasoning_effort=conversation.effort.value,
                strftime_now=conversation.now.strftime,
            )
        except _Refused:
            raise
        except (TemplateError, *_RUNTIME_ERRORS) as error:
            raise _refusal(error) from error

    def _spelling(self, name: str) -> str:
        id_ = self._vocabulary.named.get(name)
        return "" if id_ is None else self._vocabulary.tokens[id_]


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    """Models are shown JSON as it is, not escaped for HTML as jinja's own filter does."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _refusal(error: Exception) -> RequestError:
    return RequestError(
        f"the model's chat template refuses these messages: {error}",
        "messages",
        hint="change the roles or their order",
    )
