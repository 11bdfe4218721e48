from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest

from mm35local.engine.backend import Chunk
from mm35local.engine.masks import Masks
from mm35local.errors import GrammarFailed
from mm35local.native.model import Model
from mm35local.types import Grammar

EOS, FIRST_BYTE, N_VOCAB = 0, 1, 257
A, B, C = (FIRST_BYTE + byte for byte in b"abc")


@dataclass
class Vocabulary:
    """Of a `Model` what masks read, counted."""

    is_broken: bool = False
    num_reads: int = 0
    eos_id: int = EOS

    def token_pieces(self) -> list[bytes]:
        self.num_reads += 1
        if self.is_broken:
            raise ValueError("no pieces")
        return [b"<eos>", *(bytes((byte,)) for byte in range(256))]

    def control_ids(self) -> list[int]:
        return [EOS]

    def tokenize(self, text: str) -> list[int]:
        return [FIRST_BYTE + byte for byte in text.encode()]


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture
def masks(vocabulary: Vocabulary) -> Iterator[Masks]:
    masks = Masks(cast("Model", vocabulary), [EOS])
    yield masks
    masks.shutdown()


def step(masks: Masks, *request_ids: int, drafts: tuple[int, ...] = ()) -> None:
    chunks = [Chunk(request_id, request_id, 0, (A,), True, drafts) for request_id in request_ids]
    with masks.made_meanwhile(chunks):
        pass


def allowed(masks: Masks, request_id: int, number: int = 0) -> list[int]:
    constraint = masks.of(request_id)
    assert constraint is not None
    logits = np.zeros(N_VOCAB, dtype=np.float32)
    assert constraint.mask(logits, number)
    return [int(i) for i in np.flatnonzero(np.isfinite(logits))]


def test_every_constrained_request_of_a_step_has_its_masks_behind_it(masks: Masks) -> None:
    masks.open(1, Grammar('start: "ab"'))
    masks.open(2, Grammar('start: "c"'))
    step(masks, 1, 2, 3, drafts=(A,))
    assert allowed(masks, 1) == [A]
    assert allowed(masks, 1, 1) == [B]
    assert allowed(masks, 2) == [C]
    assert masks.of(3) is None
    masks.close(1)
    assert masks.of(1) is None


def test_the_vocabulary_is_read_once_and_only_when_somebody_asks(masks: Masks, vocabulary: Vocabulary) -> None:
    step(masks, 1)
    masks.settle()
    assert vocabulary.num_reads == 0
    masks.prepare()
    masks.settle()
    masks.open(1, Grammar('start: "ab"'))
    masks.open(2, Grammar('start: "ab"'))
    assert vocabulary.num_reads == 1


def test_a_vocabulary_that_cannot_be_read_is_told_to_the_request(masks: Masks, vocabulary: Vocabulary) -> None:
    vocabulary.is_broken = True
    masks.prepare()
    masks.settle()
    with pytest.raises(ValueError, match="no pieces"):
        masks.open(1, Grammar('start: "ab"'))
    step(masks, 1)


def test_a_grammar_that_comes_to_nothing_fails_behind_the_step(masks: Masks) -> None:
    masks.open(1, Grammar('start: "ab"'))
    step(masks, 1)
    constraint = masks.of(1)
    assert constraint is not None
    constraint.feed(C)
    has_computed = False
    with pytest.raises(GrammarFailed), masks.made_meanwhile([Chunk(1, 1, 0, (A,), True)]):
        has_computed = True
    assert has_computed


def test_the_error_of_a_step_is_the_step_s(masks: Masks) -> None:
    masks.open(1, Grammar('start: "ab"'))
    with pytest.raises(ZeroDivisionError), masks.made_meanwhile([Chunk(1, 1, 0, (A,), True)]):
        raise ZeroDivisionError
    step(masks, 1)
    assert allowed(masks, 1) == [A]
