"""The Mistral family's dialect: prompts token for token as mistral-common encodes them.

Invariant: text is only ever encoded as text; control tokens come from the structure of the conversation.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.chunk import TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest, ReasoningEffort
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV13, InstructTokenizerV15
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mm35local.chat import tools as ours
from mm35local.chat.grammar import AnswerGrammar, callable_tools
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.parser import MistralParser, Parser
from mm35local.chat.response_format import ResponseFormat
from mm35local.chat.tekken import build_tekkenizer
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError, RequestError

if TYPE_CHECKING:
    from mm35local.chat.mistral_grammar import MistralGrammars

_AnyMessage = UserMessage | AssistantMessage | ToolMessage | SystemMessage


class MistralDialect:
    """Implements `chat.dialect.Dialect`."""

    def __init__(self, vocabulary: Vocabulary, version: TokenizerVersion, name: str) -> None:
        """`name` is the file's, for errors. Raises ModelFileError if mistral-common cannot work with its vocabulary."""
        self._vocabulary = vocabulary
        self._has_effort = version.supports_model_settings
        tekken = build_tekkenizer(vocabulary, version, name)
        instruct = InstructTokenizerV15 if self._has_effort else InstructTokenizerV13
        try:
            self._encoder = instruct(tekken)
        except ValueError as error:
            raise ModelFileError(name, f"its control tokens are incomplete: {error}") from error
        # mistral-common's own checks of a request are not run: `normalize` gives only histories that it knows, and a
        # tool whose schema is no valid one, or whose name is a little long, is still a tool.
        self._request_normalizer = get_normalizer(version, tekken.model_settings_builder)
        self._version = version

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def has_effort(self) -> bool:
        return self._has_effort

    @property
    def has_tools(self) -> bool:
        return True

    def render(self, conversation: Conversation) -> tuple[int, ...]:
        messages = normalize(conversation.messages).messages
        request: ChatCompletionRequest[_AnyMessage] = ChatCompletionRequest(
            messages=[_to_mistral(message, is_last=message is messages[-1]) for message in messages],
            tools=[_tool(tool) for tool in conversation.tools] or None,
            reasoning_effort=_effort(conversation.effort) if self._has_effort else None,
        )
        try:
            encoded = self._encoder.encode_instruct(self._request_normalizer.from_chat_completion_request(request))
        except (MistralCommonException, RecursionError, ValueError) as error:
            raise RequestError(f"mistral-common cannot encode these messages: {error}", "messages") from error
        return tuple(encoded.tokens)

    def grammar(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        if wanted is None and not conversation.tools:
            callable_tools(conversation)
            return AnswerGrammar()
        return self._grammars.for_answer(conversation, wanted)

    @cached_property
    def _grammars(self) -> MistralGrammars:
        """Made for the first request that has one: reading the vocabulary once more takes a while."""
        from mm35local.chat.mistral_grammar import MistralGrammars

        validator = get_validator(self._version, mode=ValidationMode.test)
        tokenizer = MistralTokenizer(self._encoder, validator, self._request_normalizer)
        return MistralGrammars(tokenizer, has_effort=self._has_effort)

    def parser(self) -> Parser:
        return MistralParser(self._vocabulary)


def _effort(effort: Effort) -> ReasoningEffort:
    return ReasoningEffort.high if effort is Effort.HIGH else ReasoningEffort.none


def _tool(tool: ours.Tool) -> Tool:
    return Tool(function=Function(name=tool.name, description=tool.description, parameters=dict(tool.parameters)))


def _to_mistral(message: Message, *, is_last: bool) -> _AnyMessage:
    match message.role:
        case Role.ASSISTANT:
            calls = [_call(call) for call in message.tool_calls]
            content = _assistant_content(message, is_last=is_last)
            return AssistantMessage(content=content, tool_calls=calls or None, prefix=is_last)
        case Role.TOOL:
            return ToolMessage(content=message.content, tool_call_id=message.tool_call_id)
        case Role.SYSTEM:
            return SystemMessage(content=message.content)
        case _:
            return UserMessage(content=message.content)


def _call(call: ours.ToolCall) -> ToolCall:
    return ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))


def _assistant_content(message: Message, *, is_last: bool) -> str | list[TextChunk | ThinkChunk]:
    """Thinking stands before the text; where the model is to continue its own thinking, it is not closed."""
    if not message.thinking:
        return message.content
    is_open = is_last and not message.content
    think = ThinkChunk(thinking=message.thinking, closed=not is_open)
    return [think, TextChunk(text=message.content)] if message.content else [think]
