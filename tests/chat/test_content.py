from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.content import Content, read_content, read_thinking
from mm35local.errors import RequestError

TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, Content()),
        ("a", Content("a")),
        ([], Content()),
        ([TEXT, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}], Content("ab")),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}, "c"], Content("abc")),
        ([{"type": "refusal", "refusal": "no"}], Content("no")),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, TEXT], Content("a", "hm")),
        ([{"type": "thinking", "thinking": "hm", "signature": "x"}, TEXT], Content("a", "hm")),
        ([{"type": "redacted_thinking", "data": "x"}, TEXT], Content("a")),
        ([{"type": "reasoning_text", "text": "hm"}], Content("", "hm")),
        ([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}], Content("a")),
    ],
)
def test_every_dialect(content: object, expected: Content) -> None:
    assert read_content(content, "messages.0.content") == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (7, "messages.0.content is a int"),
        ([TEXT, {"type": "image_url", "image_url": {"url": "x"}}], "content.1 is of type 'image_url'"),
        ([{"type": "text"}], "content.0 has no text"),
        ([7], "content.0 is a int"),
        ([{"type": ["text"]}], "content.0 is of type"),
        ([{"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}], "content.0 is of type 'document'"),
    ],
)
def test_what_is_no_text_is_named(content: object, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        read_content(content, "messages.0.content")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("hm", "hm"),
        ({"content": "hm"}, "hm"),
        ({"summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]}, "ab"),
        ([{"type": "text", "text": "hm"}], "hm"),
    ],
)
def test_thinking_in_every_dialect(value: object, expected: str) -> None:
    assert read_thinking(value, "reasoning") == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["text", "thinking"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "thinking", "refusal"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_anything_is_read_or_refused(value: object) -> None:
    for read in (read_content, read_thinking):
        with suppress(RequestError):
            assert read(value, "content") is not None
