"""Whether llguidance takes a grammar. Agents send the same tools with every turn, so what it said is remembered."""

from __future__ import annotations

from functools import lru_cache

from llguidance import LLMatcher

NUM_REMEMBERED = 512
LONGEST_REMEMBERED = 1 << 15
"""Characters: together at most 16 MiB of ASCII."""


def validation_error(lark: str) -> str:
    """llguidance's own words, some lines of them; empty if it takes the grammar. Takes some 1.5 ms a tool."""
    return _remembered(lark) if len(lark) <= LONGEST_REMEMBERED else _asked(lark)


def _asked(lark: str) -> str:
    is_error, messages = LLMatcher.validate_grammar_with_warnings(lark)
    return messages[0] if is_error else ""


_remembered = lru_cache(NUM_REMEMBERED)(_asked)
