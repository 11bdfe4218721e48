"""The dialect of any other GGUF: its own jinja template, sandboxed, with user text unable to forge control tokens.

Invariant: the same conversation (its clock included) gives the same parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mm35local.chat.grammar import (
    AnswerGrammar,
    answer_schema,
    callable_tools,
    checked,
    json_rule,
    must_call,
    raw_rule,
)
from mm35local.chat.hermes import OPEN, HermesParser
from mm35local.chat.literals import ControlLiterals, absent_marker
from mm35local.chat.messages import Conversation, Effort, Message, Role, no_vision
from mm35local.chat.normalize import normalize
from mm35local.chat.parser import Parser, TextParser
from mm35local.chat.response_format import RawGrammar, ResponseFormat
from mm35local.chat.template_variables import Shield, all_texts, message_variables, tool_variables, without_tools
from mm35local.chat.tools import Tool
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
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            self._has_tools = "tools" in find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise ModelFileError(
                name, f"line {error.lineno} of its chat template: {error.message}", "choose another build of the model"
            ) from error

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def has_effort(self) -> bool:
        return any(name in self._source for name in _EFFORT_NAMES)

    @property
    def has_tools(self) -> bool:
        return self._has_tools

    @property
    def has_vision(self) -> bool:
        """How other families write images into a prompt is not known here."""
        return False

    def render(self, conversation: Conversation) -> tuple[str | int, ...]:
        if conversation.images:
            raise no_vision()
        messages = normalize(conversation.messages).messages
        if not self._has_tools:
            messages = without_tools(messages)
        try:
            parts = self._render(messages, conversation)
        except _Refused as refused:
            if messages[0].role is not Role.SYSTEM:
                raise _refusal(refused) from refused
            parts = self._render_folded(messages, conversation)
        is_begun = bool(parts) and parts[0] == self._bos
        return parts if self._bos is None or is_begun else (self._bos, *parts)

    def grammar(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        """Calls are these models' own words, which differ from one to the next: none can be forced."""
        if callable_tools(conversation) and must_call(conversation):
            raise RequestError(
                "this model cannot be made to call a tool: its calls are no control tokens",
                "tool_choice",
                hint="use tool_choice 'auto', or a Mistral model",
            )
        if wanted is None:
            return AnswerGrammar()
        rule = raw_rule(wanted) if isinstance(wanted, RawGrammar) else json_rule(answer_schema(wanted))
        return checked(f"start: answer SAFE_WS?\nanswer: {rule}\nSAFE_WS: /[ \\t\\r\\n]{{1,8}}/\n", is_required=True)

    def parser(self) -> Parser:
        writes_calls = self._has_tools and OPEN in self._source
        return HermesParser(self._vocabulary) if writes_calls else TextParser(self._vocabulary)

    def _render_folded(self, messages: tuple[Message, ...], conversation: Conversation) -> tuple[str | int, ...]:
        """For templates that know no system role: its text opens the first user message."""
        as_user = Message(Role.USER, messages[0].content)
        try:
            return self._render(normalize((as_user, *messages[1:])).messages, conversation)
        except _Refused as refused:
            raise _refusal(refused) from refused

    def _render(self, messages: Sequence[Message], conversation: Conversation) -> tuple[str | int, ...]:
        """A last assistant message follows the generation prompt, for the model to continue."""
        continued = messages[-1].content if messages[-1].role is Role.ASSISTANT else ""
        told = messages[:-1] if messages[-1].role is Role.ASSISTANT else messages
        tools = conversation.tools if self._has_tools else ()
        marker = absent_marker([self._source, *all_texts(told, tools), *self._vocabulary.controls])
        rendered = self._text(told, tools, conversation, lambda text: self._literals.shield(text, marker))
        parts = self._literals.split(rendered, marker)
        return (*parts, continued) if continued else parts

    def _text(
        self, messages: Sequence[Message], tools: Sequence[Tool], conversation: Conversation, shield: Shield
    ) -> str:
        try:
            return self._template.render(
                messages=[message_variables(message, shield) for message in messages],
                tools=[tool_variables(tool, shield) for tool in tools] or None,
                add_generation_prompt=True,
                bos_token=self._vocabulary.spelling("bos"),
                eos_token=self._vocabulary.spelling("eos"),
                enable_thinking=conversation.effort is Effort.HIGH,
                reasoning_effort=conversation.effort.value,
                strftime_now=conversation.now.strftime,
            )
        except _Refused:
            raise
        except (TemplateError, *_RUNTIME_ERRORS) as error:
            raise _refusal(error) from error


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
