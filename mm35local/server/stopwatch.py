"""When the parts of one answer came: what `timings`, /metrics and /slots tell is read off here."""

from __future__ import annotations

import time
from typing import Any

from mm35local.chat.turn import Decoded, Done, Prefill, Started, TurnEvent
from mm35local.types import Usage


class Stopwatch:
    """Runs from its making. Feed it every event of a turn; moments that have not come yet are None."""

    def __init__(self) -> None:
        self.asked_at = time.monotonic()
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.ended_at: float | None = None
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.num_computed_tokens = 0
        """Of the prompt, cached ones included."""
        self.num_decoded = 0
        self.num_drafted = 0
        self.num_accepted = 0
        self.usage: Usage | None = None

    def feed(self, event: TurnEvent) -> None:
        now = time.monotonic()
        match event:
            case Started():
                self.started_at = event.at
                self.num_prompt_tokens, self.num_cached_tokens = event.num_prompt_tokens, event.num_cached_tokens
                self.num_computed_tokens = event.num_cached_tokens
            case Prefill():
                self.num_computed_tokens = event.num_computed
            case Decoded():
                self.first_token_at = self.first_token_at or now
                self.num_computed_tokens = self.num_prompt_tokens
                self.num_decoded += event.num_tokens
                self.num_drafted += event.num_drafted
                self.num_accepted += event.num_accepted
            case Done():
                self.ended_at, self.usage = now, event.usage
                self.num_computed_tokens = self.num_prompt_tokens  # also where the first token was the end

    @property
    def prefill_seconds(self) -> float:
        """From the engine's taking it up to the first token, or to the end or to now where there is none yet."""
        if self.started_at is None:
            return 0.0
        return (self.first_token_at or self.ended_at or time.monotonic()) - self.started_at

    @property
    def decode_seconds(self) -> float:
        if self.first_token_at is None:
            return 0.0
        return (self.ended_at or time.monotonic()) - self.first_token_at

    def summary(self) -> str:
        """A line for the log: tokens, the wait for the first of them, and the rate of the others."""
        parts = [f"{self.num_prompt_tokens} tokens ({self.num_cached_tokens} cached)"]
        if self.usage is not None:
            parts[0] += f" + {self.usage.num_completion_tokens}"
        if self.first_token_at is not None:
            parts.append(f"first after {self.first_token_at - self.asked_at:.2f} s")
        if self.usage is not None and self.usage.num_completion_tokens > 1 and self.decode_seconds:
            parts.append(f"then {(self.usage.num_completion_tokens - 1) / self.decode_seconds:.1f} a second")
        return ", ".join(parts)

    def timings(self) -> dict[str, Any]:
        """As llama.cpp's clients know them, in milliseconds and tokens per second."""
        usage = self.usage or Usage(self.num_prompt_tokens, 0, self.num_cached_tokens)
        num_computed = usage.num_prompt_tokens - usage.num_cached_tokens
        return {
            "queue_ms": round(1000 * ((self.started_at or time.monotonic()) - self.asked_at), 3),
            "cache_n": usage.num_cached_tokens,
            **_rate("prompt", num_computed, self.prefill_seconds),
            **_rate("predicted", usage.num_completion_tokens, self.decode_seconds),
            **({"draft_n": usage.num_drafted, "draft_n_accepted": usage.num_accepted} if usage.num_drafted else {}),
        }

    def progress(self) -> dict[str, Any]:
        """llama.cpp's `prompt_progress`: tokens of the prompt, how many came from the cache, how many are done."""
        return {
            "total": self.num_prompt_tokens,
            "cache": self.num_cached_tokens,
            "processed": self.num_computed_tokens,
            "time_ms": round(1000 * self.prefill_seconds),
        }


def _rate(name: str, num_tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": num_tokens,
        f"{name}_ms": round(1000 * seconds, 3),
        f"{name}_per_token_ms": round(1000 * seconds / num_tokens, 3) if num_tokens else 0.0,
        f"{name}_per_second": round(num_tokens / seconds, 3) if seconds else 0.0,
    }
