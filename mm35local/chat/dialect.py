"""The door of the room: how one model is spoken to and understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from mm35local.chat.messages import Conversation
from mm35local.chat.parser import Parser
from mm35local.chat.response_format import ResponseFormat
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError

if TYPE_CHECKING:
    from mm35local.chat.grammar import AnswerGrammar

_TEKKEN_PRE_TYPES = ("tekken", "pixtral")  # early files of the family say pixtral


class Dialect(Protocol):
    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def has_effort(self) -> bool:
        """Does the model know `Conversation.effort`?"""
        ...

    @property
    def has_tools(self) -> bool:
        """Does the model know `Conversation.tools`? Where it does not, they are not in the prompt."""
        ...

    @property
    def has_vision(self) -> bool:
        """Do images have a place in the model's prompts, and the model eyes? Where not, `render` refuses them."""
        ...

    def render(self, conversation: Conversation) -> tuple[str | int, ...]:
        """The prompt: token ids, and text that is still to be tokenized (`Engine.tokenize`).

        Images stand there under their `row_ids`. Raises RequestError.
        """
        ...

    def grammar(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        """What the answer may be, out of `wanted` and the conversation's tools and choice among them.

        Raises RequestError if `wanted` or a forced call cannot be enforced. The first one takes a second or so, unless
        it was prepared.
        """
        ...

    def parser(self) -> Parser:
        """A fresh one, for one answer."""
        ...


def load_dialect(
    metadata: Mapping[str, object], name: str, *, has_vision: bool = False, prepares_grammars: bool = False
) -> Dialect:
    """The dialect of the GGUF with this metadata; `name` is the file's, for errors. Takes up to a second.

    Mistral's own where the control tokens speak it, else the template in the file. `has_vision`: a vision tower is
    loaded beside it. `prepares_grammars`: take another second now, so that the first answer with one need not wait.
    Raises ModelFileError.
    """
    vocabulary = Vocabulary.from_metadata(metadata, name)
    if _is_tekken(metadata):
        from mm35local.chat.mistral import MistralDialect
        from mm35local.chat.tekken import tekken_version

        version = tekken_version(vocabulary)
        if version is not None:
            dialect = MistralDialect(vocabulary, version, name, has_vision=has_vision)
            if prepares_grammars:
                dialect.prepare_grammars()
            return dialect
    return _template_dialect(metadata, vocabulary, name)


def _is_tekken(metadata: Mapping[str, object]) -> bool:
    return metadata.get("general.architecture") == "mistral3" or metadata.get("tokenizer.ggml.pre") in _TEKKEN_PRE_TYPES


def _template_dialect(metadata: Mapping[str, object], vocabulary: Vocabulary, name: str) -> Dialect:
    from mm35local.chat.template import TemplateDialect

    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise ModelFileError(name, "it has no chat template", "choose an instruct model: this one only completes text")
    adds_bos = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama")
    return TemplateDialect(vocabulary, source, adds_bos=adds_bos is True, name=name)
