"""Whose request is next: clients share the slots, however many requests each of them has waiting.

Pure. Invariant: no client gets another slot while a waiting one has fewer; within a client the first to come is first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mm35local.engine.request import Request


def in_turn(waiting: Sequence[Request], running: Iterable[Request]) -> list[Request]:
    """Those that `wait` in order of arrival, in the order in which slots are due to them.

    One that was interrupted comes before all that have not begun: somebody is reading its answer.
    """
    num_slots = Counter(request.client for request in running)
    due: list[tuple[bool, int, int, Request]] = []
    for request in waiting:
        due.append((not request.is_started, num_slots[request.client], request.arrival, request))
        num_slots[request.client] += 1
    return [entry[-1] for entry in sorted(due, key=lambda entry: entry[:-1])]


def surplus(waiting: Iterable[Request]) -> Request:
    """Whom to refuse when too many wait: the last to come of the client that has most of them.

    At least one of them must not have begun.
    """
    unbegun = [request for request in waiting if not request.is_started]
    num_waiting = Counter(request.client for request in unbegun)
    return max(unbegun, key=lambda request: (num_waiting[request.client], request.arrival))
