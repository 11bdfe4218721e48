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


_FORMATS = (
    "grammar",
    "json_schema",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "length_penalty": (1,),
    "mirostat": (0,),
    "smoothing_factor": (0,),
    "tfs_z": (1,),
    "top_a": (0,),
    "top_n_sigma": (-1, 0),
    "typical_p": (1, 0),
    "use_beam_search": (False,),
    "xtc_probability": (0,),
}
"""Samplers of other servers, with the values at which they do nothing. An answer without them is still an answer."""


def unused_notes(extras: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on each sampler that was asked for and is not known here."""
    asked = [name for name, idle in _IDLE.items() if extras.get(name) not in (None, *idle)]
    return tuple(f"{name} is not known here and was not used" for name in asked)


def refuse_unsupported(extras: Mapping[str, Any]) -> None:
    """Raises RequestError for the first field in `extras` that asks for what this version cannot do."""
    for name, asks in _ASKS.items():
        if name in extras and asks(extras[name]):
            hint = "send it as response_format of a chat completion" if name in _FORMATS else f"leave {name} out"
            raise RequestError(f"{name} is not supported", name, "unsupported_parameter", hint)
