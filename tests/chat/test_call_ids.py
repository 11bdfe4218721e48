from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.call_ids import CallIds, answer_seed, hashed, is_legal


@given(st.lists(st.text(max_size=10) | st.sampled_from(["123456789", "call_0"]), max_size=8))
def test_ids_are_legal_unique_and_stay(given_ids: list[str]) -> None:
    ids = CallIds()
    mapped = [ids.take(id_) for id_ in given_ids]
    assert all(map(is_legal, mapped))
    assert len(set(mapped)) == len(mapped)
    again = CallIds()
    assert [again.take(id_) for id_ in mapped] == mapped


def test_a_legal_id_is_kept_and_others_depend_on_themselves_alone() -> None:
    assert CallIds().take("abcDEF123") == "abcDEF123"
    first, second = CallIds(), CallIds()
    second.take("another")
    assert first.take("call_1") == second.take("call_1") == hashed("call_1", 0)


def test_answers_to_different_prompts_have_different_ids() -> None:
    assert hashed(answer_seed((1, 23)), 0) != hashed(answer_seed((12, 3)), 0)
    assert is_legal(hashed(answer_seed(()), 0))
