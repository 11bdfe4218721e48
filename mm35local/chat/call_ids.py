"""Names for calls: nine letters and digits, as Mistral's protocol has them, whatever a client or a server chose.

Invariant: a pure function of what is named, so that a history that comes back gives the same prompt.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable

LENGTH = 9
_ALPHABET = string.digits + string.ascii_letters
_LEGAL = re.compile(rf"[a-zA-Z0-9]{{{LENGTH}}}")


def is_legal(id_: str) -> bool:
    return _LEGAL.fullmatch(id_) is not None


def hashed(*parts: object) -> str:
    """Nine characters that only these parts give (53 bits)."""
    number = int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).digest())
    return "".join(_ALPHABET[number // len(_ALPHABET) ** i % len(_ALPHABET)] for i in range(LENGTH))


def answer_seed(prompt_ids: Iterable[int]) -> str:
    """What tells one answer's call ids from another's: its prompt."""
    return hashlib.sha256(",".join(map(str, prompt_ids)).encode()).hexdigest()


class CallIds:
    """Maps the ids of one history, in order; a legal one that is new stays as it is."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, id_: str) -> str:
        candidate, num_tried = id_, 0
        while not is_legal(candidate) or candidate in self._used:
            candidate = hashed(id_, num_tried)
            num_tried += 1
        self._used.add(candidate)
        return candidate
