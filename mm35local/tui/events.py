"""What the server tells the chat, as plain data: its health, and the events of one answer.

Nothing here knows Textual or HTTP, so `mm35 chat -p` and the screens read the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mm35local.errors import Mm35Error
from mm35local.types import Usage


class ServerState(StrEnum):
    LOADING = "loading"
    READY = "ok"
    FAILED = "failed"
    DRAINING = "draining"
    """It shuts down: answers under way end, new ones are refused."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The model that a server has loaded, or is loading."""

    id: str
    n_ctx: int = 0
    """Tokens one conversation may hold; 0 while unknown."""
    size_bytes: int = 0
    reason: str = ""
    """One line: why this model and no other; empty when it was asked for by name."""
    sees_images: bool | None = None
    """None while unknown."""


@dataclass(frozen=True, slots=True)
class Health:
    """One answer of `/health`. `progress` (0..1) and its rate count while LOADING, `error` is set once FAILED."""

    state: ServerState
    progress: float = 0.0
    loaded_bytes: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    model: ModelCard | None = None
    num_slots: int = 0
    num_busy_slots: int = 0
    num_waiting: int = 0
    """Requests in the queue, ours among them."""
    cards: tuple[tuple[str, int], ...] = ()
    """What the server holds on each GPU, in bytes."""
    error: Mm35Error | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The server took the request; the prompt is being read."""


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of the answer, of the thinking before it, or of both."""

    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The model ended: "stop", or "length" when max_tokens or the context was used up."""

    finish_reason: str


@dataclass(frozen=True, slots=True)
class Prefill:
    """How far the prompt is read, in tokens; the cached ones count as read. `seconds` since the engine took it."""

    num_total: int
    num_cached: int
    num_done: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of a tool call: only its first delta has a name."""

    index: int
    name: str = ""
    arguments: str = ""
    id: str = ""


ChatEvent = Opened | Prefill | Delta | CallDelta | Ended | Usage
"""`Opened`, the prompt being read, then deltas, then `Ended`; `Usage` comes last, from servers that count."""
