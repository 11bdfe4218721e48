"""What each token id stands for, read from a GGUF's metadata: bytes of text, or a control token.

Invariant: a control token never stands for text, so it cannot leak into an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from mm35local.errors import ModelFileError


class TokenType(IntEnum):
    """llama.cpp's numbers, as `tokenizer.ggml.token_type` holds them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_NAMED = ("bos", "eos", "eot", "eom", "unknown", "padding")
# llama.cpp treats these as control tokens whatever type the file gives them.
_ALWAYS_CONTROL = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>"),
        *("<end_of_utterance>", "<EOT>", "_<EOT>", "< EOT >", "<｜end▁of▁sentence｜>"),
    }
)
_SPM_SPACE = "▁"


def _byte_alphabet() -> dict[int, int]:
    """GPT-2's spelling of bytes: printable ones as themselves, the other 68 as U+0100 onwards, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {0x100 + i: byte for i, byte in enumerate(others)}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: Sequence[str]
    types: Sequence[int]
    is_byte_level: bool
    controls: Mapping[str, int]
    """Spelling to id, of every control token."""
    control_ids: frozenset[int]
    named: Mapping[str, int]
    """Ids by their name in the metadata: bos, eos, eot, eom, unknown, padding, as far as the file names them."""
    alphabet: Mapping[int, int]
    longest_bytes: int = 1
    """Of one token's text: a text of n bytes has at least n / longest_bytes tokens."""

    @staticmethod
    def from_metadata(metadata: Mapping[str, object], name: str) -> Vocabulary:
        """Reads `tokenizer.ggml.*`; `name` is the file's, for errors. Raises ModelFileError."""
        kind = metadata.get("tokenizer.ggml.model")
        if kind not in ("gpt2", "llama"):
            raise ModelFileError(
                name,
                f"its tokenizer is {kind!r}, expected 'gpt2' (byte-level) or 'llama' (SentencePiece)",
                "choose a model with one of these tokenizers",
            )
        tokens = _list(metadata, "tokenizer.ggml.tokens", name)
        types = _list(metadata, "tokenizer.ggml.token_type", name)
        if len(tokens) != len(types):
            raise ModelFileError(name, f"{len(tokens)} tokens but {len(types)} token types")
        named = _named_ids(metadata, len(tokens))
        controls = _controls(tokens, types, named)
        ids = frozenset(controls.values())
        found = Vocabulary(tokens, types, kind == "gpt2", controls, ids, named, _byte_alphabet())
        return replace(found, longest_bytes=max(1, *(len(found.token_bytes(id_)) for id_ in range(len(tokens)))))

    def spelling(self, name: str) -> str:
        """How a token named in the metadata is written; empty where the file names none."""
        id_ = self.named.get(name)
        return "" if id_ is None else self.tokens[id_]

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes (perhaps part of a character) that a token adds to the text; none for control tokens."""
        if token_id in self.control_ids or not 0 <= token_id < len(self.tokens):
            return b""
        token = self.tokens[token_id]
        match self.types[token_id]:
            case TokenType.NORMAL:
                return self._normal_bytes(token)
            case TokenType.USER_DEFINED:
                return token.encode()
            case TokenType.BYTE:
                return bytes((int(token[3:-1], 16),))  # spelt <0x0A>
            case _:
                return b""

    def _normal_bytes(self, token: str) -> bytes:
        if not self.is_byte_level:
            return token.replace(_SPM_SPACE, " ").encode()
        try:
            return token.translate(self.alphabet).encode("latin-1")
        except UnicodeEncodeError:  # a token outside the byte alphabet is spelt as it is
            return token.encode()


def _list(metadata: Mapping[str, object], key: str, name: str) -> list[Any]:
    found = metadata.get(key)
    if not isinstance(found, list) or not found:
        raise ModelFileError(name, f"it has no list under {key}")
    return found


def _named_ids(metadata: Mapping[str, object], num_tokens: int) -> dict[str, int]:
    found = {short: metadata.get(f"tokenizer.ggml.{short}_token_id") for short in _NAMED}
    return {short: id_ for short, id_ in found.items() if isinstance(id_, int) and 0 <= id_ < num_tokens}


def _controls(tokens: Sequence[str], types: Sequence[int], named: Mapping[str, int]) -> dict[str, int]:
    controls = {
        token: id_
        for id_, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN) or token in _ALWAYS_CONTROL
    }
    return controls | {tokens[id_]: id_ for short, id_ in named.items() if short in ("bos", "eos", "eot", "eom")}
