from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.detokenizer import Detokenizer
from mm35local.chat.vocabulary import Vocabulary
from tests.chat.cuts import cut
from tests.fakes.metadata import NUM_CHATML_CONTROLS, chatml_ids, chatml_metadata

VOCABULARY = Vocabulary.from_metadata(chatml_metadata(), "x.gguf")


def test_a_character_waits_for_its_last_byte() -> None:
    detokenizer = Detokenizer(VOCABULARY)
    assert [detokenizer.feed((id_,)) for id_ in chatml_ids("é🙂")] == ["", "é", "", "", "", "🙂"]
    assert detokenizer.flush() == ""


def test_a_character_that_never_ends_is_replaced_and_forgotten() -> None:
    detokenizer = Detokenizer(VOCABULARY)
    assert detokenizer.feed(chatml_ids("🙂")[:2]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.feed(chatml_ids("ok")) == "ok"


@given(st.text().flatmap(lambda text: st.tuples(st.just(text), cut(chatml_ids(text)))))
def test_text_survives_every_cut(case: tuple[str, list[list[int]]]) -> None:
    text, pieces = case
    detokenizer = Detokenizer(VOCABULARY)
    assert "".join(map(detokenizer.feed, pieces)) + detokenizer.flush() == text


@given(st.lists(st.integers(0, 255 + NUM_CHATML_CONTROLS)).flatmap(lambda ids: st.tuples(st.just(ids), cut(ids))))
def test_any_tokens_give_the_same_text_however_cut(case: tuple[list[int], list[list[int]]]) -> None:
    ids, pieces = case
    whole, cut_up = Detokenizer(VOCABULARY), Detokenizer(VOCABULARY)
    assert "".join(map(cut_up.feed, pieces)) + cut_up.flush() == whole.feed(ids) + whole.flush()
