from __future__ import annotations

import pytest

from mm35local.chat import validation
from mm35local.chat.validation import LONGEST_REMEMBERED, validation_error

GOOD, BAD = 'start: "remembered"', "start: nowhere_remembered"


def test_what_was_said_once_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validation_error(GOOD) == ""
    error = validation_error(BAD)
    assert "nowhere_remembered" in error
    monkeypatch.setattr(validation, "LLMatcher", None)
    assert validation_error(GOOD) == ""
    assert validation_error(BAD) == error


def test_very_long_grammars_are_not_kept() -> None:
    before = validation._remembered.cache_info().currsize
    assert validation_error('start: "x"' + " " * LONGEST_REMEMBERED) == ""
    assert "not_there" in validation_error("start: not_there" + " " * LONGEST_REMEMBERED)
    assert validation._remembered.cache_info().currsize == before
