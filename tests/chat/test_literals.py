from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm35local.chat.literals import ControlLiterals, absent_marker
from mm35local.errors import RequestError

CONTROLS = {"<|a|>": 1, "<|b|>": 2, "</s>": 3, "aba": 4, "x": 5}
LITERALS = ControlLiterals(CONTROLS)
MARKER = "\ue000"
TEXTS = st.text("<|ab>/s x\n", max_size=12)


def ids(parts: tuple[str | int, ...]) -> list[int]:
    return [part for part in parts if isinstance(part, int)]


def test_the_template_s_own_literals_become_ids() -> None:
    assert LITERALS.split("<|a|>user\nhi</s>", MARKER) == (1, "user\nhi", 3)


@pytest.mark.parametrize("text", ["<|a|>", "a <|a|><|b|> b", "ababa", "<<|a|>>", "</s></s>", "|a|", "<|a", "/s>"])
def test_user_text_comes_through_as_text(text: str) -> None:
    shielded = LITERALS.shield(text, MARKER)
    parts = LITERALS.split(f"<|a|>{shielded}<|b|>", MARKER)
    assert parts == (1, text, 2)


def test_outer_white_space_stays_outside() -> None:
    """So that a template's `trim` still works."""
    assert LITERALS.shield(" \n<|a|> ", MARKER).strip() == f"<{MARKER}|a|>"
    assert LITERALS.shield("  ", MARKER) == "  "


def test_harmless_text_is_left_alone() -> None:
    assert LITERALS.shield("1 < 2 | 3", MARKER) == "1 < 2 | 3"


@given(TEXTS, TEXTS, TEXTS)
@example("<", "|a|", ">")
@example("<|", "a", "|>")
@example("", "<|a|", ">")
@example("a", "b", "a")
def test_no_control_token_has_a_letter_of_the_user_s(before: str, text: str, after: str) -> None:
    """Whatever a template puts around it: the control tokens are those of the template's own two pieces."""
    shielded = LITERALS.shield(text, MARKER)
    if text.strip():
        expected = ids(LITERALS.split(before, MARKER)) + ids(LITERALS.split(after, MARKER))
        assert ids(LITERALS.split(before + shielded + after, MARKER)) == expected
    assert shielded.replace(MARKER, "") == text


@given(st.lists(st.text(st.characters(min_codepoint=0xDFF0 + 0x10, max_codepoint=0xE005)), max_size=4))
def test_the_marker_is_absent(texts: list[str]) -> None:
    marker = absent_marker(texts)
    assert not any(marker in text for text in texts)
    assert marker == absent_marker(texts)


def test_a_text_of_all_private_characters_is_refused() -> None:
    every = "".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]))
    with pytest.raises(RequestError, match="private use"):
        absent_marker([every])


def test_long_texts_and_many_literals_are_quick() -> None:
    literals = ControlLiterals({f"<|reserved_{i}|>": i for i in range(256)})
    text = "if a < b | c > d: print('<|nothing|>')\n" * 25_000
    start = time.perf_counter()
    assert literals.split(literals.shield(text, MARKER), MARKER) == (text,)
    assert time.perf_counter() - start < 5
