"""Fields of OpenAI's wire, and of its extensions, that would change the answer and that this version does not know.

A field is refused only where its value asks for something: `"best_of": 1` and `"functions": []` do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mm35local.errors import RequestError

_Predicate = Callable[[Any], bool]


def _is_given(value: Any) -> bool:
    return bool(value)


def _is_forced(choice: Any) -> bool:
    return choice not in (None, "none", "auto")


_ASKS: Mapping[str, _Predicate] = {
    "echo": _is_given,
    "best_of": lambda n: n not in (None, 1),
    "functions": _is_given,
    "function_call": _is_forced,
    "modalities": lambda kinds: kinds not in (None, ["text"]),
    "audio": _is_given,
    "web_search_options": lambda options: options is not None,
    "min_tokens": _is_given,
    "stop_token_ids": _is_given,
    "bad_words": _is_given,
    "continue_final_message": _is_given,
    "grammar": _is_given,
    "json_schema": _is_given,
    "structured_outputs": _is_given,
    "guided_json": _is_given,
    "guided_regex": _is_given,
    "guided_choice": _is_given,
    "guided_grammar": _is_given,
}


def refuse_unsupported(extras: Mapping[str, Any]) -> None:
    """Raises RequestError for the first field in `extras` that asks for what this version cannot do."""
    for name, asks in _ASKS.items():
        if name in extras and asks(extras[name]):
            raise RequestError(f"{name} is not supported yet", name, "unsupported_parameter", f"leave {name} out")
