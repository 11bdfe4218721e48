"""Functions that the model may call, and its calls of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mm35local.errors import RequestError

_NAME = re.compile(r"[a-zA-Z0-9_.:/-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function as OpenAI's wire describes it: `{"type": "function", "function": {…}}`.

    `parameters` is the JSON schema of its arguments. Raises RequestError if the name is not one a call could spell.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    """The grammar enforces `parameters`; otherwise any JSON object is a call's arguments."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RequestError(
                f"a tool is named {self.name[:200]!r}: expected 1 to 128 of a-z A-Z 0-9 _ - . : /",
                "tools",
                hint="rename the tool",
            )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON text, as the wire and the model write it. In an answer `id` has 9 letters and digits."""

    id: str
    name: str
    arguments: str


class ToolMode(StrEnum):
    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`name` is the function that must be called, for `NAMED` only."""

    mode: ToolMode = ToolMode.AUTO
    name: str = ""
