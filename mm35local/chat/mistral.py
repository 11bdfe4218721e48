"""The Mistral family's dialect: prompts token for token as mistral-common encodes them.

Invariant: text is only ever encoded as text; control tokens come from the structure of the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.chunk import ContentChunk, ImageURLChunk, TextChunk, ThinkChunk
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest, ReasoningEffort
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy, SpecialTokens, TokenizerVersion
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV13, InstructTokenizerV15
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mm35local.chat import tools as ours
from mm35local.chat.grammar import AnswerGrammar, callable_tools
from mm35local.chat.messages import Conversation, Effort, Message, Role, no_vision
from mm35local.chat.normalize import normalize
from mm35local.chat.parser import MistralParser, Parser
from mm35local.chat.response_format import ResponseFormat
from mm35local.chat.tekken import build_tekkenizer
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError, RequestError
from mm35local.types import Image

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.image import ImageEncoder

    from mm35local.chat.mistral_grammar import MistralGrammars

_AnyMessage = UserMessage | AssistantMessage | ToolMessage | SystemMessage


class MistralDialect:
    """Implements `chat.dialect.Dialect`."""

    def __init__(
        self, vocabulary: Vocabulary, version: TokenizerVersion, name: str, *, has_vision: bool = False
    ) -> None:
        """`name` is the file's, for errors. Raises ModelFileError if mistral-common cannot work with its vocabulary."""
        self._vocabulary = vocabulary
        self._has_effort = version.supports_model_settings
        tekken = build_tekkenizer(vocabulary, version, name)
        instruct = _EncoderV15 if self._has_effort else _EncoderV13
        try:
            self._encoder = instruct(tekken, image_encoder=cast("ImageEncoder", _number))
            self._image_end = tekken.get_special_token(SpecialTokens.img_end.value) if has_vision else -1
        except ValueError as error:
            raise ModelFileError(name, f"its control tokens are incomplete: {error}") from error
        # mistral-common's own checks of a request are not run: `normalize` gives only histories that it knows, and a
        # tool whose schema is no valid one, or whose name is a little long, is still a tool.
        self._request_normalizer = get_normalizer(version, tekken.model_settings_builder)
        self._version = version
        self._has_vision = has_vision

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def has_effort(self) -> bool:
        return self._has_effort

    @property
    def has_tools(self) -> bool:
        return True

    @property
    def has_vision(self) -> bool:
        return self._has_vision

    def render(self, conversation: Conversation) -> tuple[int, ...]:
        images = conversation.images
        if images and not self._has_vision:
            raise no_vision()
        numbers = {image: number for number, image in enumerate(images)}
        messages = normalize(conversation.messages).messages
        request: ChatCompletionRequest[_AnyMessage] = ChatCompletionRequest(
            messages=[_to_mistral(message, numbers, is_last=message is messages[-1]) for message in messages],
            tools=[_tool(tool) for tool in conversation.tools] or None,
            reasoning_effort=_effort(conversation.effort) if self._has_effort else None,
        )
        try:
            encoded = self._encoder.encode_instruct(self._request_normalizer.from_chat_completion_request(request))
        except (MistralCommonException, RecursionError, ValueError) as error:
            raise RequestError(f"mistral-common cannot encode these messages: {error}", "messages") from error
        return tuple(self._with_rows(encoded.tokens, images)) if images else tuple(encoded.tokens)

    def _with_rows(self, tokens: Iterable[int], images: Sequence[Image]) -> Iterator[int]:
        """Each image's rows, with the row ends among them, and [IMG_END] where its number stands."""
        for token in tokens:
            if token >= 0:
                yield token
            else:
                yield from images[-1 - token].row_ids
                yield self._image_end

    def grammar(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        if wanted is None and not conversation.tools:
            callable_tools(conversation)
            return AnswerGrammar()
        return self._grammars.for_answer(conversation, wanted)

    def prepare_grammars(self) -> None:
        """Do now what the first of `grammar` would wait for."""
        self._grammars  # noqa: B018

    @cached_property
    def _grammars(self) -> MistralGrammars:
        """Made for the first request that has one, unless before: reading the vocabulary once more takes a while."""
        from mm35local.chat.mistral_grammar import MistralGrammars

        validator = get_validator(self._version, mode=ValidationMode.test)
        tokenizer = MistralTokenizer(self._encoder, validator, self._request_normalizer)
        return MistralGrammars(tokenizer, has_effort=self._has_effort)

    def parser(self) -> Parser:
        return MistralParser(self._vocabulary)


class _WithoutText:
    """mistral-common also decodes every prompt that it encodes; nobody reads that, and it takes half of the time."""

    def decode(self, tokens: list[int], special_token_policy: SpecialTokenPolicy = SpecialTokenPolicy.IGNORE) -> str:
        return ""


class _EncoderV13(_WithoutText, InstructTokenizerV13):
    pass


class _EncoderV15(_WithoutText, InstructTokenizerV15):
    pass


@dataclass(frozen=True, slots=True)
class _Numbered:
    """What mistral-common is told of an image: one token that no vocabulary has, and pixels that nobody looks at."""

    tokens: list[int]
    image: None = None


def _number(chunk: ImageURLChunk) -> _Numbered:
    """Stands where mistral-common's own encoder of images would."""
    return _Numbered([-1 - int(chunk.get_url())])


def _effort(effort: Effort) -> ReasoningEffort:
    return ReasoningEffort.high if effort is Effort.HIGH else ReasoningEffort.none


def _tool(tool: ours.Tool) -> Tool:
    return Tool(function=Function(name=tool.name, description=tool.description, parameters=dict(tool.parameters)))


def _to_mistral(message: Message, numbers: Mapping[Image, int], *, is_last: bool) -> _AnyMessage:
    match message.role:
        case Role.ASSISTANT:
            calls = [_call(call) for call in message.tool_calls]
            content = _assistant_content(message, is_last=is_last)
            return AssistantMessage(content=content, tool_calls=calls or None, prefix=is_last)
        case Role.TOOL:
            return ToolMessage(content=_content(message, numbers), tool_call_id=message.tool_call_id)
        case Role.SYSTEM:
            return SystemMessage(content=message.content)
        case _:
            return UserMessage(content=_content(message, numbers))


def _content(message: Message, numbers: Mapping[Image, int]) -> str | list[ContentChunk]:
    if not message.images:
        return message.content
    return [
        TextChunk(text=part) if isinstance(part, str) else ImageURLChunk(image_url=str(numbers[part]))
        for part in message.parts
    ]


def _call(call: ours.ToolCall) -> ToolCall:
    return ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))


def _assistant_content(message: Message, *, is_last: bool) -> str | list[TextChunk | ThinkChunk]:
    """Thinking stands before the text; where the model is to continue its own thinking, it is not closed."""
    if not message.thinking:
        return message.content
    is_open = is_last and not message.content
    think = ThinkChunk(thinking=message.thinking, closed=not is_open)
    return [think, TextChunk(text=message.content)] if message.content else [think]
