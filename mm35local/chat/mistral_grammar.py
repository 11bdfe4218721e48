"""Grammars of the Mistral family's answers: mistral-common writes the calls, these templates say what goes with them.

`[THINK]…[/THINK]` may come first where the model was told to think; a forced call or JSON has no text before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_common.guidance.grammar_factory import GrammarFactory
from mistral_common.protocol.instruct.tool_calls import Function, Tool, ToolChoiceEnum
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mm35local.chat import grammar as ours
from mm35local.chat import tools as ours_tools
from mm35local.chat.grammar import AnswerGrammar, argument_schema, callable_tools, checked, must_call
from mm35local.chat.messages import Conversation, Effort
from mm35local.chat.response_format import JsonObject, JsonSchema, RawGrammar, ResponseFormat

_THINK = "{{ begin_think_token }} TEXT {{ end_think_token }}"
_TERMINALS = "TEXT: /(.|\\n)+/\nSAFE_WS: /[ \\t\\r\\n]{1,8}/\n"
_BODY = """\
{% if json_only %}body: SAFE_WS? %json {{ json_schema_str }}
{% elif json_schema_str != None %}body: SAFE_WS? %json {{ json_schema_str }} | {{ fcall }}
{% elif mode == "required" %}body: {{ fcall }}
{% elif mode == "auto" %}body: TEXT? calls?
calls: {{ fcall }}
{% else %}body: TEXT?
{% endif %}"""
_RAW = "body: answer SAFE_WS?\nanswer: "


class MistralGrammars:
    def __init__(self, tokenizer: MistralTokenizer[Any, Any, Any, Any, Any], *, has_effort: bool) -> None:
        """Takes a second or so."""
        self._factory = GrammarFactory(tokenizer)
        self._has_effort = has_effort
        self._can_think = "begin_think_token" in self._factory.select_jinja_template()

    def for_answer(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        """Raises RequestError if what must be enforced cannot be."""
        must = must_call(conversation)
        tools, warnings = _tools(callable_tools(conversation))
        if isinstance(wanted, RawGrammar) and not must:
            return checked(self._lark(conversation, _RAW + _literal(ours.raw_rule(wanted))), is_required=True)
        schema = ours.answer_schema(wanted) if isinstance(wanted, JsonObject | JsonSchema) and not must else None
        if not conversation.tools and schema is None:
            return AnswerGrammar()
        lark = self._lark(
            conversation,
            _BODY,
            mode=ToolChoiceEnum.required if must else ToolChoiceEnum.auto if tools else ToolChoiceEnum.none,
            tools=tools,
            schema=schema,
            json_only=schema is not None and not tools,
        )
        return checked(lark, is_required=must or schema is not None, warnings=warnings)

    def _lark(
        self,
        conversation: Conversation,
        body: str,
        *,
        mode: ToolChoiceEnum = ToolChoiceEnum.none,
        tools: list[Tool] | None = None,
        schema: dict[str, Any] | None = None,
        json_only: bool = False,
    ) -> str:
        may_think = self._can_think and (conversation.effort is Effort.HIGH or not self._has_effort)
        start = f"start: think? body\nthink: {_THINK}\n" if may_think else "start: body\n"
        return self._factory.get_lark_from_jinja(
            template=start + body + "\n" + _TERMINALS,
            mode=mode,
            tools=tools,
            json_schema=schema,
            parallel_tool_calls=conversation.parallel_tool_calls,
            json_only=json_only,
            force_tool_names=True,
        )


def _tools(offered: Sequence[ours_tools.Tool]) -> tuple[list[Tool], tuple[str, ...]]:
    """As mistral-common writes them, and what of strict ones cannot be enforced."""
    tools: list[Tool] = []
    warnings: list[str] = []
    for tool in offered:
        schema, problems = argument_schema(tool) if tool.strict else ({}, [])
        tools.append(Tool(function=Function(name=tool.name, parameters=schema, strict=tool.strict)))
        warnings += problems
    return tools, tuple(warnings)


def _literal(text: str) -> str:
    """Text that jinja leaves as it is."""
    return "{{ " + repr(text) + " }}"
