"""tekken.json as llama.cpp wants it: token strings, their kinds, and merges.

tekken (tiktoken) joins, again and again, the neighbours whose union has the lowest rank. llama.cpp applies a list of
merges in order. Both agree when each token contributes the one merge that builds it from lower ranks: the two parts
left when its bytes are joined by lower ranks only. Special tokens are control tokens, so text never becomes one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from mm35local.errors import CheckpointError
from quantize.json_file import read_object

_NORMAL, _CONTROL = 1, 3
_NUM_BYTES = 256


class _Config(BaseModel):
    default_vocab_size: int = Field(gt=0)
    default_num_special_tokens: int = Field(gt=0)


class _Token(BaseModel):
    rank: int
    token_bytes: str


class _Special(BaseModel):
    rank: int
    token_str: str


class _Tekken(BaseModel):
    config: _Config
    vocab: list[_Token]
    special_tokens: list[_Special]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: list[str]
    """Special tokens as they are; the others byte by byte in GPT-2's printable alphabet."""
    token_types: list[int]
    merges: list[str]
    special_ids: Mapping[str, int]


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a tekken.json. Raises CheckpointError if it is missing or no BPE vocabulary."""
    tekken = _parse(read_object(path), path)
    num_special = tekken.config.default_num_special_tokens
    num_ranks = tekken.config.default_vocab_size - num_special
    if not _NUM_BYTES <= num_ranks <= len(tekken.vocab):
        raise CheckpointError(str(path), f"default_vocab_size wants {num_ranks} ranks, vocab has {len(tekken.vocab)}")
    pieces = _pieces(tekken.vocab[:num_ranks], path)
    specials = _specials(tekken.special_tokens, num_special, path)
    alphabet = _byte_alphabet()
    return Vocabulary(
        tokens=[*specials, *(_spell(piece, alphabet) for piece in pieces)],
        token_types=[_CONTROL] * len(specials) + [_NORMAL] * len(pieces),
        merges=[f"{_spell(left, alphabet)} {_spell(right, alphabet)}" for left, right in _merges(pieces)],
        special_ids={token: index for index, token in enumerate(specials)},
    )


def read_special_id(path: Path, text: str) -> int:
    """The id of one special token of a tekken.json. Raises CheckpointError if it has none."""
    for special in _parse(read_object(path), path).special_tokens:
        if special.token_str == text:
            return special.rank
    raise CheckpointError(str(path), f"expected a special token {text}, found none")


def _parse(value: dict[str, Any], path: Path) -> _Tekken:
    try:
        return _Tekken.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(str(path), f"{field}: {first['msg']}") from error


def _pieces(vocab: Sequence[_Token], path: Path) -> list[bytes]:
    pieces = []
    for rank, token in enumerate(vocab):
        try:
            piece = base64.b64decode(token.token_bytes, validate=True)
        except binascii.Error as error:
            raise CheckpointError(str(path), f"vocab[{rank}]: {error}") from error
        if token.rank != rank or not piece or (rank < _NUM_BYTES and piece != bytes([rank])):
            raise CheckpointError(str(path), f"vocab[{rank}]: expected rank {rank}, bytes first, found {token}")
        pieces.append(piece)
    if len(set(pieces)) < len(pieces):
        raise CheckpointError(str(path), "two ranks have the same bytes")
    return pieces


def _specials(listed: Sequence[_Special], num_special: int, path: Path) -> list[str]:
    """Missing ones are filled with mistral-common's placeholder names."""
    tokens = [f"<SPECIAL_{rank}>" for rank in range(num_special)]
    for special in listed:
        if not 0 <= special.rank < num_special:
            raise CheckpointError(str(path), f"special token {special.token_str!r} has rank {special.rank}")
        tokens[special.rank] = special.token_str
    if len(set(tokens)) < num_special:
        raise CheckpointError(str(path), "two special tokens have the same text")
    return tokens


def _byte_alphabet() -> list[str]:
    """GPT-2's mapping of bytes to printable characters: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(_NUM_BYTES)]


def _spell(piece: bytes, alphabet: Sequence[str]) -> str:
    return "".join(alphabet[byte] for byte in piece)


def _merges(pieces: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """In rank order. A token that lower ranks do not build from two parts has none: joining never makes it."""
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    joined = (_join_below(piece, ranks, rank) for rank, piece in enumerate(pieces) if len(piece) > 1)
    return [(parts[0], parts[1]) for parts in joined if len(parts) == 2]


def _join_below(piece: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """The parts of `piece` after joining neighbours, lowest rank and then leftmost first, by ranks below `limit`."""
    parts = [piece[index : index + 1] for index in range(len(piece))]
    while len(parts) > 2:
        unions = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        lowest = min(unions)
        if lowest >= limit:
            return parts
        at = unions.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
