"""Mistral's own tokenizer rebuilt from a GGUF's vocabulary, so that any file works without its tekken.json.

Invariant: ids below 1000 are control tokens, byte pairs follow in rank order, the first 256 being the bytes.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.model_settings_builder import ModelSettingsBuilder
from mistral_common.tokens.tokenizers.tekken import SpecialTokenInfo, Tekkenizer, TokenInfo

from mm35local.chat.vocabulary import TokenType, Vocabulary
from mm35local.errors import ModelFileError

NUM_SPECIAL = 1000
_NUM_BYTES = 256
# The split pattern is the same in every tekken.json that Mistral has published.
_LETTER_RUN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
)
_PATTERN = _LETTER_RUN + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SETTINGS = {
    "reasoning_effort": {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"},
}
_MOST_CHARS = 1 << 22
"""Of texts that are kept with their tokens: some 8 MB, of ordinary ones."""
_LONGEST = _MOST_CHARS // 4
_OVERHEAD = 256
"""What keeping a text takes beside it, in characters."""


class _Encoded(NamedTuple):
    num_chars: int
    ids: array[int]


class _Tekkenizer(Tekkenizer):
    """Keeps what texts were encoded to: an agent sends all that was said before with every turn."""

    num_special_tokens = NUM_SPECIAL  # a property there, and asked for once a token

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self._encoded: LRUCache[str, _Encoded] = LRUCache(_MOST_CHARS, _num_chars)
        self._lock = Lock()  # long prompts are rendered in threads

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        if bos or eos or len(s) > _LONGEST:
            return super().encode(s, bos, eos)
        with self._lock:
            known = self._encoded.get(s)
        if known is None:
            known = _Encoded(len(s) + _OVERHEAD, array("I", super().encode(s, bos, eos)))
            with self._lock:
                self._encoded[s] = known
        return known.ids.tolist()


def _num_chars(encoded: _Encoded) -> int:
    return encoded.num_chars


def tekken_version(vocabulary: Vocabulary) -> TokenizerVersion | None:
    """The protocol that the control tokens speak: v15 with model settings, v13 with [THINK] alone, None if older."""
    if "[MODEL_SETTINGS]" in vocabulary.controls:
        return TokenizerVersion.v15
    return TokenizerVersion.v13 if {"[THINK]", "[ARGS]"} <= vocabulary.controls.keys() else None


def build_tekkenizer(vocabulary: Vocabulary, version: TokenizerVersion, name: str) -> Tekkenizer:
    """Raises ModelFileError if the vocabulary is not laid out as tekken's."""
    pairs = list(_byte_pairs(vocabulary))
    if pairs[:_NUM_BYTES] != [bytes((byte,)) for byte in range(_NUM_BYTES)]:
        raise ModelFileError(name, f"expected the 256 single bytes from token {NUM_SPECIAL} on, as in tekken")
    if len(set(pairs)) != len(pairs):
        raise ModelFileError(name, "two tokens of its vocabulary stand for the same bytes")
    return _Tekkenizer(
        vocab=[TokenInfo(rank=i, token_bytes=_base64(pair), token_str=None) for i, pair in enumerate(pairs)],
        special_tokens=_special_tokens(vocabulary),
        pattern=_PATTERN,
        vocab_size=NUM_SPECIAL + len(pairs),
        num_special_tokens=NUM_SPECIAL,
        version=version,
        model_settings_builder=(
            ModelSettingsBuilder.model_validate(_SETTINGS) if version.supports_model_settings else None
        ),
    )


def _byte_pairs(vocabulary: Vocabulary) -> Iterator[bytes]:
    """In rank order; the padding that some files put behind the last one ends them."""
    for id_ in range(NUM_SPECIAL, len(vocabulary.tokens)):
        if vocabulary.types[id_] != TokenType.NORMAL:
            return
        yield vocabulary.token_bytes(id_)


def _base64(pair: bytes) -> str:
    return base64.b64encode(pair).decode("ascii")


def _special_tokens(vocabulary: Vocabulary) -> list[SpecialTokenInfo]:
    return [
        SpecialTokenInfo(rank=id_, token_str=token, is_control=True)
        for id_, token in enumerate(vocabulary.tokens[:NUM_SPECIAL])
    ]
