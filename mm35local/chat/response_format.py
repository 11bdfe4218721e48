"""What the answer's text must look like. `chat.grammar` turns these into what the engine enforces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that `schema` accepts; one that cannot be enforced is refused, never ignored."""

    schema: Mapping[str, Any]


class GrammarSyntax(StrEnum):
    LARK = "lark"
    """llguidance's dialect of it."""
    REGEX = "regex"
    """Rust's dialect of it; the whole answer matches."""


@dataclass(frozen=True, slots=True)
class RawGrammar:
    """An extension: the answer, after its thinking, follows a grammar of the client's own."""

    syntax: GrammarSyntax
    source: str


ResponseFormat = JsonObject | JsonSchema | RawGrammar
