"""The numpy views are the memory that llama_decode reads."""

from __future__ import annotations

import pytest

from mm35local.native.batch import Batch


def test_rows_are_what_the_struct_points_at() -> None:
    batch = Batch(8)
    assert batch.add(3, 10, [5, 6, 7], wants_logits=False) == 2
    assert batch.add(1, 4, (9,), wants_logits=True) == 3
    struct = batch.struct()
    assert struct.n_tokens == 4
    assert [struct.token[row] for row in range(4)] == [5, 6, 7, 9]
    assert [struct.pos[row] for row in range(4)] == [10, 11, 12, 4]
    assert [(struct.n_seq_id[row], struct.seq_id[row][0]) for row in range(4)] == [(1, 3), (1, 3), (1, 3), (1, 1)]
    assert [struct.logits[row] for row in range(4)] == [0, 0, 0, 1]


def test_a_cleared_batch_forgets_its_flags() -> None:
    batch = Batch(4)
    batch.add(0, 0, [1, 2], wants_logits=True)
    batch.clear()
    batch.add(0, 2, [1, 2], wants_logits=False)
    assert batch.num_rows == 2
    assert [batch.struct().logits[row] for row in range(2)] == [0, 0]


@pytest.mark.parametrize("num_tokens", [0, 5])
def test_a_batch_does_not_take_nothing_or_too_much(num_tokens: int) -> None:
    with pytest.raises(AssertionError):
        Batch(4).add(0, 0, [1] * num_tokens, wants_logits=True)
