"""Log-probabilities against a plain formula, in order, and none of what may not come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.engine.logprobs import LEAST_LOGPROB, LogprobsReader, token_logprobs

_LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40)


@given(logits=_LOGITS, data=st.data())
def test_they_are_the_log_of_the_softmax(logits: list[float], data: st.DataObject) -> None:
    token_id = data.draw(st.integers(0, len(logits) - 1))
    num_top = data.draw(st.integers(0, 20))
    found = token_logprobs(np.array(logits, dtype=np.float32), token_id, num_top)
    log_sum = math.log(math.fsum(math.exp(x - max(logits)) for x in logits)) + max(logits)
    in_order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    assert found.logprob == pytest.approx(logits[token_id] - log_sum, abs=1e-4)
    assert len(found.top) == min(num_top, len(logits))
    assert [logits[i] for i, _ in found.top] == [logits[i] for i in in_order[: len(found.top)]]
    for i, logprob in found.top:
        assert logprob == pytest.approx(logits[i] - log_sum, abs=1e-4)


def test_what_a_grammar_forbids_is_not_among_them() -> None:
    found = token_logprobs(np.array([1, -np.inf, -np.inf], dtype=np.float32), 0, 3)
    assert found.top == ((0, 0.0),)
    assert found.logprob == 0.0


@pytest.mark.parametrize("logits", [[1.0, math.nan], [math.nan, math.nan], [math.inf, 1.0], [-math.inf, -math.inf]])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_logits_that_are_no_numbers_give_logprobs_that_are(logits: list[float]) -> None:
    for token_id in range(2):
        found = token_logprobs(np.array(logits, dtype=np.float32), token_id, 2)
        assert found.logprob == LEAST_LOGPROB
        assert found.top == ()


def test_each_is_taken_once() -> None:
    reader = LogprobsReader(1)
    logits = np.zeros(4, dtype=np.float32)
    reader.read(logits, 2)
    reader.read(logits, 3)
    assert [each.logprob for each in reader.take()] == [pytest.approx(-math.log(4))] * 2
    assert reader.take() == ()
