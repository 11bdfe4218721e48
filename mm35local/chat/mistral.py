"""The Mistral family's dialect: prompts token for token as mistral-common encodes them.

Invariant: text is only ever encoded as text; control tokens come from the structure of the conversation.
"""

from __future__ import annotations

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.chunk import TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest, ReasoningEffort
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV13, InstructTokenizerV15
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.parser import MistralParser, Parser
from mm35local.chat.tekken import build_tekkenizer
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError, RequestError

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
            encoder = instruct(tekken)
        except ValueError as error:
            raise ModelFileError(name, f"its control tokens are incomplete: {error}") from error
        self._tokenizer = MistralTokenizer(
            encoder,
            validator=get_validator(version, mode=ValidationMode.test),
            request_normalizer=get_normalizer(version, tekken.model_settings_builder),
        )

    @property
    def has_effort(self) -> bool:
        return self._has_effort

    def render(self, conversation: Conversation) -> tuple[int, ...]:
        messages = normalize(conversation.messages)
        request: ChatCompletionRequest[_AnyMessage] = ChatCompletionRequest(
            messages=[_to_mistral(message, is_last=message is messages[-1]) for message in messages],
            reasoning_effort=_effort(conversation.effort) if self._has_effort else None,
        )
        try:
            return tuple(self._tokenizer.encode_chat_completion(request).tokens)
        except MistralCommonException as error:
            raise RequestError(f"mistral-common refuses these messages: {error}", "messages") from error

    def parser(self) -> Parser:
        return MistralParser(self._vocabulary)


def _effort(effort: Effort) -> ReasoningEffort:
    return ReasoningEffort.high if effort is Effort.HIGH else ReasoningEffort.none


def _to_mistral(message: Message, *, is_last: bool) -> _AnyMessage:
    match message.role:
        case Role.ASSISTANT:
            return AssistantMessage(content=_assistant_content(message, is_last=is_last), prefix=is_last)
        case Role.SYSTEM:
            return SystemMessage(content=message.content)
        case _:
            return UserMessage(content=message.content)


def _assistant_content(message: Message, *, is_last: bool) -> str | list[TextChunk | ThinkChunk]:
    """Thinking stands before the text; where the model is to continue its own thinking, it is not closed."""
    if not message.thinking:
        return message.content
    is_open = is_last and not message.content
    think = ThinkChunk(thinking=message.thinking, closed=not is_open)
    return [think, TextChunk(text=message.content)] if message.content else [think]
