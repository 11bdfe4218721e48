"""Ways to cut a sequence in pieces, for tests of everything that reads a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

_T = TypeVar("_T")


@st.composite
def cut(draw: st.DrawFn, whole: Sequence[_T]) -> list[Sequence[_T]]:
    """`whole` in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]
