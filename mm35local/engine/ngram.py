"""Guessing by lookup: what followed the last tokens earlier in a prompt or an answer will often follow them again.

Nothing is computed for it, so it costs microseconds; it is right where an answer repeats what it was given: code that
is edited, quotations, tool results, JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

LENGTH = 3
"""Tokens that must agree before a place is looked at."""
MAX_PLACES = 8
"""Places looked at, the latest ones, of the old tokens and of the new ones each."""
MAX_AGREEMENT = 32
"""No place can be better than one where so many tokens agree."""
MAX_NEW = 4096
"""New tokens are few: then they join the old ones."""
MAX_SHIFT = 4
"""Tokens that an edit may have put in or left out, where the place that was copied from is looked for again."""
MAX_LOST = 16
"""Tokens since the last place was found; then the copy has ended."""
_SHIFTS = tuple(sorted(range(-MAX_SHIFT, MAX_SHIFT + 1), key=abs))
"""The nearest first."""
_BITS = 21
"""Of a token id in a key; three make 63."""


class NgramIndex:
    """Where each run of LENGTH tokens occurred in one growing sequence; a place is the position behind the run.

    Old tokens: one sorted array of keys, built by numpy in milliseconds for 100,000 tokens, 16 bytes each. New tokens:
    hash chains as LZ77 has them, the latest place of a key and, for each place, the one before it with the same key.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        """`tokens` is kept, not copied: whoever appends to it makes the index see more. Negative ids match nothing."""
        self._tokens = tokens
        self._distance = 0
        """From the place that is copied to the end; 0: from none."""
        self._found_at = 0
        """The end when its place was found."""
        self._index_all()

    def propose(self, max_tokens: int) -> tuple[list[int], int]:
        """What may follow, at most `max_tokens`, and how many tokens before it agree: 0 behind a changed token.

        An edit copies with changes: until LENGTH tokens agree again, the copy goes on beside its place.
        """
        self._index_new()
        end = len(self._tokens)
        place, agreement = self._longest(end)
        if agreement:
            self._distance, self._found_at = end - place, end
        elif self._distance and end - self._found_at <= MAX_LOST:
            place, agreement = self._beside(end)
            self._distance = end - place
        return (self._copy(place, end, max_tokens), agreement) if place else ([], 0)

    def _longest(self, end: int) -> tuple[int, int]:
        """The place before which most tokens agree with those before `end`, and how many; 0 and 0: none."""
        places = self._places(_key(self._tokens, end)) if end >= LENGTH else ()
        best, longest = 0, 0
        for place in places:
            agreement = self._agreement(place, end)
            if agreement > longest:
                best, longest = place, agreement
            if agreement >= MAX_AGREEMENT:
                break
        return best, longest

    def _beside(self, end: int) -> tuple[int, int]:
        """Where the copy is now: nearby behind the same token, else behind the one that a changed token stands for."""
        aligned = end - self._distance
        for shift in _SHIFTS:
            place = aligned + shift
            if 0 < place < end and self._tokens[place - 1] == self._tokens[end - 1] >= 0:
                return place, 1
        return aligned, 0

    def _copy(self, place: int, end: int, max_tokens: int) -> list[int]:
        """The tokens from `place` on; where they reach the end, they go on with themselves."""
        known = self._tokens[place : min(end, place + max_tokens)]
        copied = [*known] * -(-max_tokens // len(known)) if max_tokens else []
        del copied[max_tokens:]
        if copied and min(copied) < 0:
            del copied[next(index for index, token_id in enumerate(copied) if token_id < 0) :]
        return copied

    def _agreement(self, place: int, end: int) -> int:
        """How many tokens before `place` and before `end` are the same."""
        tokens, count = self._tokens, LENGTH
        limit = min(place, MAX_AGREEMENT)
        while count < limit and tokens[place - count - 1] == tokens[end - count - 1] >= 0:
            count += 1
        return count

    def _places(self, key: int) -> Iterator[int]:
        """The latest first."""
        if key < 0:
            return
        place = self._latest.get(key)
        for _ in range(MAX_PLACES):
            if place is None:
                break
            yield place
            place = self._before[place]
        first, last = int(self._old_keys.searchsorted(key)), int(self._old_keys.searchsorted(key + 1))
        for index in range(last - 1, max(first, last - MAX_PLACES) - 1, -1):
            yield int(self._old_places[index])

    def _index_all(self) -> None:
        keys = _keys(np.asarray(self._tokens, dtype=np.int64))
        order = np.argsort(keys, kind="stable")
        order = order[np.searchsorted(keys, 0, sorter=order) :]
        self._old_keys: Int64Array = keys[order]
        self._old_places: Int64Array = order + LENGTH
        self._latest: dict[int, int] = {}
        self._before: dict[int, int | None] = {}
        self._num_indexed = len(self._tokens)
        """Places before this are known; the one at it has nothing behind it yet."""
        self._old_keys, self._old_places = _without(self._old_keys, self._old_places, self._num_indexed)

    def _index_new(self) -> None:
        if len(self._tokens) - self._num_indexed > MAX_NEW or len(self._before) > MAX_NEW:
            self._index_all()
        for place in range(max(self._num_indexed, LENGTH), len(self._tokens)):
            key = _key(self._tokens, place)
            self._before[place] = self._latest.get(key)
            self._latest[key] = place
        self._num_indexed = len(self._tokens)


def _key(tokens: Sequence[int], end: int) -> int:
    """The LENGTH tokens before `end` as one number; negative if one of them is."""
    first, second, third = tokens[end - 3 : end]
    return -1 if min(first, second, third) < 0 else (first << 2 * _BITS) | (second << _BITS) | third


def _keys(tokens: Int64Array) -> Int64Array:
    """`_key` of every end from LENGTH on."""
    if len(tokens) < LENGTH:
        return np.empty(0, dtype=np.int64)
    first, second, third = tokens[:-2], tokens[1:-1], tokens[2:]
    keys = (first << 2 * _BITS) | (second << _BITS) | third
    keys[np.minimum(np.minimum(first, second), third) < 0] = -1
    return keys


def _without(keys: Int64Array, places: Int64Array, place: int) -> tuple[Int64Array, Int64Array]:
    kept = places != place
    return keys[kept], places[kept]
