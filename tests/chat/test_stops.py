from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.stops import StopStrings
from tests.chat.cuts import cut

ALPHABET = "abc"
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3)
CASES = st.text(ALPHABET, max_size=24).flatmap(lambda text: st.tuples(STOPS, st.just(text), cut(text)))


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    strings = StopStrings(stops)
    text = "".join(map(strings.feed, pieces)) + strings.flush()
    return text, strings.is_found


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "is_found"),
    [
        ([], ["abc"], "abc", False),
        (["END"], ["some E", "N", "D more"], "some ", True),
        (["END"], ["some E", "N", "d"], "some ENd", False),
        (["aab"], ["a", "a", "a", "b"], "a", True),
        (["abcd", "b"], ["abcd"], "a", True),
        (["cd", "bcd"], ["abcd"], "a", True),
        ([""], ["abc"], "abc", False),
    ],
)
def test_text_ends_before_the_stop_string(stops: list[str], pieces: list[str], text: str, is_found: bool) -> None:
    assert run(stops, pieces) == (text, is_found)


def test_the_one_that_ended_the_text_is_known() -> None:
    strings = StopStrings(["b", "abcd", "cd"])
    assert (strings.feed("xa"), strings.found) == ("x", None)
    assert (strings.feed("bcd"), strings.found) == ("a", "b")


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    strings = StopStrings(["</answer>"])
    assert strings.feed("text <") == "text "
    assert strings.feed("/b") == "</b"
    assert strings.feed(" </answer> rest") == " "
    assert (strings.feed("more"), strings.flush()) == ("", "")


@given(CASES)
def test_the_cut_does_not_matter(case: tuple[list[str], str, list[str]]) -> None:
    stops, text, pieces = case
    assert run(stops, pieces) == run(stops, [text])


@given(CASES)
def test_no_stop_string_comes_through(case: tuple[list[str], str, list[str]]) -> None:
    stops, text, pieces = case
    found, is_found = run(stops, pieces)
    assert not any(stop in found for stop in stops)
    assert text.startswith(found)
    assert is_found == any(stop in text for stop in stops)
