"""Numbers as people read them."""

from __future__ import annotations

LEAST_SECONDS = 0.1
"""Told of a time and of a speed; less is the way from the server as much as the answer."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def count(number: int) -> str:
    """1,234 as it is; from 10,000 on in thousands: 12.3k, 262k."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1000:.1f}k" if number < 100_000 else f"{number / 1000:.0f}k"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def speed(num_tokens: int, seconds: float | None) -> str:
    """ "12.3 tok/s" of tokens whose first and last lie `seconds` apart; "" where that is too short to tell.

    Tokens of quick steps come together: of two or three of them the time says nothing.
    """
    if not seconds or seconds < LEAST_SECONDS or num_tokens < 2:
        return ""
    return f"{(num_tokens - 1) / seconds:.1f} tok/s"


def load_rate(bytes_per_second: float, eta_seconds: float | None) -> str:
    """How fast and how long a load goes: " · 1.2 GB/s, 35 s left"; "" while that is not known."""
    if not bytes_per_second or eta_seconds is None:
        return ""
    left = f"{eta_seconds:.0f} s" if eta_seconds < 60 else duration(eta_seconds)
    return f" · {bytes_per_second / 1e9:.1f} GB/s, {left} left"


def bar(share: float, width: int) -> str:
    """`share` (0..1) of a bar of `width` cells, in eighths of a cell."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
