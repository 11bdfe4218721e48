"""Which tokens an answer may go on with: llguidance follows a grammar, and everything else gets a logit of -inf.

Invariant: a token that was sampled from masked logits is one the grammar accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mm35local.errors import GrammarFailed, RequestError
from mm35local.types import Grammar

NUM_KEPT = 16
"""Compiled grammars; that of thirty tools takes a megabyte."""
_BITS = 8


@dataclass(frozen=True, slots=True)
class Pieces:
    """A vocabulary as llguidance reads one; it needs these names."""

    tokens: Sequence[bytes]
    special_token_ids: Sequence[int]
    eos_token_id: int
    tokenize: Callable[[str], list[int]]
    """Asked where a grammar leaves no choice of text: the model's own cut of it is the one that may come."""
    bos_token_id: int | None = None

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenize(text.decode("utf-8", "replace"))


class ConstraintCompiler:
    """One vocabulary's; building it takes about a second for 131072 tokens, so do it when the first grammar comes."""

    def __init__(self, pieces: Pieces, eog_ids: Iterable[int]) -> None:
        """`eog_ids`: every token that ends an answer may come where the grammar lets `eos_token_id` come."""
        self._tokenizer = LLTokenizer(TokenizerWrapper(pieces))
        self._eos_id = pieces.eos_token_id
        self._eog_ids = np.array(sorted(eog_ids), dtype=np.intp)
        self._n_vocab = len(pieces.tokens)
        self._compiled = lru_cache(NUM_KEPT)(self._compile)

    def compile(self, grammar: Grammar) -> Constraint:
        """Some 10 ms for thirty tools, once: turns of an agent bring the same ones.

        Raises RequestError if llguidance does not take the grammar.
        """
        matcher = self._compiled(grammar.lark).deep_copy()
        return Constraint(matcher, grammar, self._n_vocab, self._eos_id, self._eog_ids)

    def _compile(self, lark: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, lark, log_level=0)
        if matcher.is_error():
            problem = matcher.get_error().partition("\n")[0]
            raise RequestError(f"the grammar cannot be compiled: {problem}", "grammar", hint="simplify it")
        return matcher


class Constraint:
    """One answer's place in its grammar: `prepare` masks, `mask` logits, sample, `feed`.

    prepare([d1, d2])      masks:  0 what may come now    1 what may come after d1    2 after d1 d2
    """

    def __init__(
        self, matcher: LLMatcher, grammar: Grammar, n_vocab: int, eos_id: int, eog_ids: npt.NDArray[np.intp]
    ) -> None:
        self._matcher = matcher
        self._is_required = grammar.is_required
        self._eos_id = eos_id
        self._eog_ids = eog_ids
        self._is_off = False
        self._problem: str | None = None
        self._bits = np.zeros((n_vocab + 31) // 32 * 4, dtype=np.uint8)
        self._biases: list[npt.NDArray[np.float32]] = []
        self._num_prepared = 0
        self._bias_of_byte = _bias_of_byte()

    def prepare(self, drafts: Sequence[int] = ()) -> None:
        """Make the mask of the next token, and those behind each draft up to the first that the grammar forbids.

        Leaves the place where it was. May run in another thread while nothing else is asked of this constraint.
        """
        self._num_prepared = 0
        if self._is_off or not self._prepare_one(self._matcher):
            return
        scout = self._matcher.deep_copy() if drafts else self._matcher
        for draft in drafts:
            if not self._may_come(draft):
                break
            scout.consume_token(draft)
            if not self._prepare_one(scout):
                break

    def check(self) -> None:
        """Raises GrammarFailed if the grammar cannot be followed any more and is required."""
        if self._problem is not None and self._num_prepared == 0:
            if self._is_required:
                raise GrammarFailed(self._problem)
            self._is_off = True

    def mask(self, logits: npt.NDArray[np.float32], number: int = 0) -> bool:
        """Sets `logits`, f32[n_vocab], to -inf in place where the grammar does not go on behind `number` drafts.

        False: that mask was not prepared, so nothing may be sampled.
        """
        if self._is_off:
            return True
        if number >= self._num_prepared:
            return False
        logits += self._biases[number][: len(logits)]
        return True

    def feed(self, token_id: int) -> None:
        """The answer goes on with `token_id`."""
        if not self._is_off and token_id not in self._eog_ids:
            self._matcher.consume_token(token_id)

    def _prepare_one(self, matcher: LLMatcher) -> bool:
        """The mask of the matcher's place; False where llguidance gives up."""
        matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if matcher.is_error():
            self._problem = matcher.get_error().partition("\n")[0]
            return False
        if self._num_prepared == len(self._biases):
            self._biases.append(np.empty(len(self._bits) * _BITS, dtype=np.float32))
        bias = self._biases[self._num_prepared]
        np.take(self._bias_of_byte, self._bits, axis=0, out=bias.reshape(-1, _BITS), mode="clip")
        if bias[self._eos_id] == 0:
            bias[self._eog_ids] = 0
        self._num_prepared += 1
        return True

    def _may_come(self, draft: int) -> bool:
        """Does the mask just made let `draft` come, and something behind it?"""
        return bool(self._biases[self._num_prepared - 1][draft] == 0) and draft not in self._eog_ids


def _bias_of_byte() -> npt.NDArray[np.float32]:
    """f32[256, 8]: 0 for each bit that is set, lowest first, -inf for the others."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits, np.float32(0), np.float32(-np.inf)).astype(np.float32)
