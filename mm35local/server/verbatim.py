"""A prompt that is no conversation: given as text or ids, continued as it stands, answered as plain text.

Invariant: text stays text; control tokens come only from ids, or from the model's own way to fill a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mm35local.chat.dialect import Dialect
from mm35local.chat.grammar import AnswerGrammar
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.parser import Parser, TextParser
from mm35local.chat.response_format import ResponseFormat
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import RequestError

_MISTRAL_GAP = ("[SUFFIX]", "[PREFIX]")
_NAMED_GAP = ("fim_pre", "fim_suf", "fim_mid")


Parts = tuple[str | int, ...]
NO_CONVERSATION = (Message(Role.USER),)
"""For `Conversation.messages`, which may not be empty, of a turn that has none."""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Implements `chat.dialect.Dialect` for one prompt, whatever the conversation."""

    vocabulary: Vocabulary
    parts: Parts
    has_effort: bool = False
    has_tools: bool = False
    has_vision: bool = False

    def render(self, conversation: Conversation) -> Parts:
        if not any(part != "" for part in self.parts):
            raise RequestError("the prompt is empty: at least one token is needed", "prompt", "empty_prompt")
        return self.parts

    def grammar(self, conversation: Conversation, wanted: ResponseFormat | None) -> AnswerGrammar:
        return AnswerGrammar()

    def parser(self) -> Parser:
        return TextParser(self.vocabulary)


def continued(text: str, dialect: Dialect, metadata: Mapping[str, object]) -> Parts:
    """`text` behind the begin token, where the model wants one."""
    return (*_begin(dialect, metadata), text)


def filled(prefix: str, suffix: str, dialect: Dialect, metadata: Mapping[str, object]) -> Parts:
    """A prompt whose answer stands between `prefix` and `suffix`. Raises RequestError if the model cannot do that."""
    controls = dialect.vocabulary.controls
    if all(literal in controls for literal in _MISTRAL_GAP):
        after, before = (controls[literal] for literal in _MISTRAL_GAP)
        return (*_begin(dialect, metadata), after, suffix, before, prefix)
    ids = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in _NAMED_GAP]
    if all(isinstance(id_, int) for id_ in ids):
        before, after, middle = (int(str(id_)) for id_ in ids)
        return (before, prefix, after, suffix, middle)
    raise RequestError(
        "this model cannot fill a gap: its vocabulary has no tokens for it",
        "suffix",
        "unsupported_parameter",
        "leave suffix out, or serve a model made for completion in the middle",
    )


def _begin(dialect: Dialect, metadata: Mapping[str, object]) -> tuple[int, ...]:
    is_wanted = metadata.get("tokenizer.ggml.add_bos_token", metadata.get("tokenizer.ggml.model") == "llama")
    bos = dialect.vocabulary.named.get("bos")
    return (bos,) if is_wanted is True and bos is not None else ()
