"""What the hosted model would have cost: the price list of Mistral Medium 3.5, in USD per million tokens."""

from __future__ import annotations

from collections.abc import Iterable

from mm35local.tui.records import Message

INPUT_USD = 1.50
OUTPUT_USD = 7.50


def tokens_of(messages: Iterable[Message]) -> tuple[int, int]:
    """Tokens read and written over all answers; each question sends the whole conversation again."""
    usages = [message.outcome.usage for message in messages if message.outcome.usage]
    return sum(u.num_prompt_tokens for u in usages), sum(u.num_completion_tokens for u in usages)


def hosted_usd(num_input: int, num_output: int) -> float:
    return (num_input * INPUT_USD + num_output * OUTPUT_USD) / 1e6


def dollars(usd: float) -> str:
    """Cents to the hundredth while they are few."""
    return f"${usd:.2f}" if usd >= 0.1 else f"${usd:.4f}"
