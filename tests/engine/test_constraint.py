from __future__ import annotations

import time
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine.constraint import Constraint, ConstraintCompiler, Pieces
from mm35local.errors import GrammarFailed, RequestError
from mm35local.types import Grammar

EOS, END_OF_TURN, FIRST_BYTE = 0, 1, 3
WORDS = [b"ab", b"abc", b'{"', b'":']
N_VOCAB = FIRST_BYTE + 256 + len(WORDS)


def ids(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


@cache
def compiler() -> ConstraintCompiler:
    tokens = [b"<eos>", b"<turn>", b"<call>", *(bytes((byte,)) for byte in range(256)), *WORDS]
    return ConstraintCompiler(Pieces(tokens, [0, 1, 2], EOS, ids), [EOS, END_OF_TURN])


def begin(lark: str, *, is_required: bool = True) -> Constraint:
    return compiler().compile(Grammar(lark, is_required))


def masked(constraint: Constraint) -> npt.NDArray[np.float32]:
    logits = np.arange(N_VOCAB, dtype=np.float32)
    constraint.prepare()
    constraint.check()
    assert constraint.mask(logits)
    return logits


def allowed(constraint: Constraint) -> list[int]:
    return [int(i) for i in np.flatnonzero(np.isfinite(masked(constraint)))]


def test_only_what_the_grammar_goes_on_with_keeps_its_logit() -> None:
    constraint = begin('start: "abc" | "x"')
    a, x = ids("ax")
    word = FIRST_BYTE + 256
    assert allowed(constraint) == [a, x, word, word + 1]
    logits = masked(constraint)
    assert logits[a] == a
    assert logits[EOS] == -np.inf


def test_every_end_may_come_where_one_may() -> None:
    constraint = begin('start: "x"')
    constraint.feed(ids("x")[0])
    assert allowed(constraint) == [EOS, END_OF_TURN]


def test_control_tokens_come_only_where_the_grammar_names_them() -> None:
    constraint = begin("start: <[2]> /(.|\\n)+/")
    assert allowed(constraint) == [2]
    constraint.feed(2)
    assert 2 not in allowed(constraint)
    assert set(ids("aZ9 \né")) - set(allowed(constraint)) == {FIRST_BYTE + 0xA9}  # the second byte of a character


LETTERS = ids("abcdefghijklmnopqrstuvwxyz")


def prepared(constraint: Constraint, drafts: list[int]) -> list[list[int]]:
    """What may come behind each of the drafts."""
    constraint.prepare(drafts)
    constraint.check()
    masks = []
    for number in range(len(drafts) + 1):
        logits = np.zeros(N_VOCAB, dtype=np.float32)
        if constraint.mask(logits, number):
            masks.append([int(i) for i in np.flatnonzero(np.isfinite(logits))])
    return masks


def test_masks_behind_drafts_are_those_of_an_answer_that_goes_so_and_leave_the_place() -> None:
    constraint = begin("start: /[a-z]/ /[0-9]/ /[a-z]/")
    assert prepared(constraint, ids("a7z")) == [LETTERS, ids("0123456789"), LETTERS, [EOS, END_OF_TURN]]
    assert allowed(constraint) == LETTERS
    constraint.feed(ids("b")[0])
    assert prepared(constraint, ids("5")) == [ids("0123456789"), LETTERS]


def test_there_is_no_mask_behind_a_draft_that_may_not_come_nor_behind_the_end() -> None:
    constraint = begin("start: /[a-z]/ /[0-9]/")
    assert prepared(constraint, ids("ab1")) == [LETTERS, ids("0123456789")]
    assert prepared(constraint, [EOS]) == [LETTERS]
    for id_ in ids("a1"):
        constraint.feed(id_)
    assert prepared(constraint, [END_OF_TURN, *ids("a")]) == [[EOS, END_OF_TURN]]


@given(st.text(alphabet='{}[]",:a1 ', max_size=12))
@settings(deadline=None, max_examples=60)
def test_prepared_masks_equal_those_made_one_by_one(text: str) -> None:
    lark = 'start: %json {"type": ["object", "array", "string"]}'
    ahead, one_by_one = begin(lark), begin(lark)
    drafts = ids(text)
    ahead_masks = prepared(ahead, drafts)
    for number, mask in enumerate(ahead_masks):
        assert allowed(one_by_one) == mask
        if number < len(drafts):
            one_by_one.feed(drafts[number])
    assert len(ahead_masks) == len(drafts) + 1 or drafts[len(ahead_masks) - 1] not in ahead_masks[-1]


def test_a_grammar_that_does_not_compile_is_a_request_s_error() -> None:
    with pytest.raises(RequestError, match="cannot be compiled"):
        begin("start: nope")


def test_a_grammar_that_is_lost_fails_the_answer_or_lets_go() -> None:
    """A token that was not allowed is the simplest way to lose it."""
    lost = begin('start: "x"')
    lost.feed(ids("y")[0])
    with pytest.raises(GrammarFailed):
        masked(lost)
    let_go = begin('start: "x"', is_required=False)
    let_go.feed(ids("y")[0])
    assert len(allowed(let_go)) == N_VOCAB
    let_go.feed(ids("z")[0])
    assert len(allowed(let_go)) == N_VOCAB


def test_a_mask_takes_less_than_a_millisecond_for_a_large_vocabulary() -> None:
    size = 131_072
    words = [b"%x" % i for i in range(size - FIRST_BYTE - 256)]
    tokens = [b"<eos>", b"<turn>", b"<call>", *(bytes((byte,)) for byte in range(256)), *words]
    constraint = ConstraintCompiler(Pieces(tokens, [0, 1, 2], EOS, ids), [EOS]).compile(
        Grammar('start: %json {"type": "object"}')
    )
    logits = np.zeros(size, dtype=np.float32)
    seconds = []
    for id_ in ids('{"a": [1, 2, "some text", {"b": null}], "c": "more of it"}'):
        logits.fill(0)
        start = time.thread_time()
        constraint.prepare()
        constraint.mask(logits)
        seconds.append(time.thread_time() - start)
        assert np.isfinite(logits[id_])
        constraint.feed(id_)
    assert float(np.median(seconds)) < 1e-3


def test_answers_by_the_same_grammar_do_not_meet() -> None:
    lark = 'start: "ab" "cd"'
    first, second = begin(lark), begin(lark)
    before = allowed(second)
    first.prepare()
    first.feed(ids("a")[0])
    assert allowed(first) == ids("b")
    assert allowed(second) == before == allowed(begin(lark))


def test_a_grammar_is_compiled_once() -> None:
    fresh = ConstraintCompiler(Pieces([b"<eos>", b"a", b"b"], [0], EOS, lambda text: [1 for _ in text]), [EOS])
    for lark in ('start: "a"', 'start: "b"', 'start: "a"', 'start: "a"'):
        fresh.compile(Grammar(lark))
    assert fresh._compiled.cache_info().misses == 2
