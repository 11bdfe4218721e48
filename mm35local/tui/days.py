"""When something was, as people say it."""

from __future__ import annotations

from datetime import datetime


def day(seconds: float, now: datetime) -> str:
    """The heading under which a moment (seconds since 1970) stands; `now` has a time zone."""
    when = datetime.fromtimestamp(seconds, now.tzinfo)
    days = (now.date() - when.date()).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    if days < 7:
        return f"{when:%A}"
    return f"{when:%B}" if when.year == now.year else f"{when:%B %Y}"


def clock(seconds: float, now: datetime) -> str:
    """The time of this week's moments, the date of older ones."""
    when = datetime.fromtimestamp(seconds, now.tzinfo)
    return f"{when:%H:%M}" if (now.date() - when.date()).days < 7 else f"{when:%d.%m.}"
