"""Clients cut strings in the middle of an emoji; half a character is no text, but no reason to fail either."""

from __future__ import annotations

import json


def without_half_characters(text: str) -> str:
    """`text` with each lone surrogate replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def legal_json(text: str) -> str:
    """JSON `text` whose strings have no half characters, written as escapes, either. Raises what `json.loads` does."""
    if "\\ud" not in text.lower():
        return text
    return without_half_characters(json.dumps(json.loads(text), ensure_ascii=False))
