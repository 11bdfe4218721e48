"""The chat template of the GGUF: the checkpoint's own, or the one that mistral-common makes for its tokenizer.

The generated one has no system prompt of its own: SYSTEM_PROMPT.txt has places for names and dates, which a template
cannot fill.
"""

from __future__ import annotations

from pathlib import Path

from mm35local.errors import CheckpointError

_MAX_BYTES = 1 << 20


def chat_template(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """(template, warnings) for the checkpoint in `folder`; None where neither way gives one. Raises CheckpointError."""
    template = _own(folder)
    if template is not None:
        return template, ()
    template, problem = _generated(folder / "tekken.json")
    if template is None:
        return None, (f"no chat_template.jinja, and mistral-common makes none ({problem}): the GGUF gets none",)
    return template, ("no chat_template.jinja beside the weights: the GGUF gets the one mistral-common generates",)


def _own(folder: Path) -> str | None:
    """chat_template.jinja; None if there is none."""
    path = folder / "chat_template.jinja"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror or error}") from error
    if len(text) > _MAX_BYTES:
        raise CheckpointError(str(path), f"larger than {_MAX_BYTES} bytes")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(str(path), f"not UTF-8 at byte {error.start}") from error


def _generated(tekken: Path) -> tuple[str | None, str]:
    """(template, ""), or (None, why not): mistral-common is not made for every vocabulary that can be converted."""
    from mistral_common.exceptions import MistralCommonException
    from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

    try:
        return str(convert_tokenizer_to_chat_template(tekken)), ""
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError, MistralCommonException) as error:
        return None, f"{error!r:.200}"
