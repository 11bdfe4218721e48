"""Half characters: what they become, in text and in the escapes of JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.unicode import legal_json, without_half_characters

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("\ud83d\ude42\\u"))


@given(ANY)
def test_what_is_left_is_text(text: str) -> None:
    legal = without_half_characters(text)
    assert legal.encode().decode() == legal
    assert without_half_characters(legal) == legal


@given(st.dictionaries(ANY, ANY | st.integers() | st.lists(ANY)))
def test_json_says_the_same_without_half_characters(value: dict[str, object]) -> None:
    found = json.loads(legal_json(json.dumps(value)))
    assert json.dumps(found, ensure_ascii=False).encode()
    assert len(found) == len({without_half_characters(key) for key in value})
    whole = json.dumps(value, ensure_ascii=False)
    if without_half_characters(whole) == whole:
        assert found == value


@pytest.mark.parametrize(
    ("text", "legal"),
    [
        ('{"a": 1.50}', '{"a": 1.50}'),
        ('"\\ud83d\\ude42"', '"🙂"'),
        ('"x\\uD83D"', '"x\ufffd"'),
        ('["\\ude42", "\\\\ud83d"]', '["\ufffd", "\\\\ud83d"]'),
    ],
)
def test_escapes(text: str, legal: str) -> None:
    assert legal_json(text) == legal


@pytest.mark.parametrize("text", ['"\\ud83d', '{"a": "\\ud83d"'])
def test_what_is_no_json_is_not_made_any(text: str) -> None:
    with pytest.raises(ValueError):
        legal_json(text)
