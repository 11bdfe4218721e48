"""Who gets which tokens this step. Pure: it reads the books of the requests and changes nothing.

There are no phases: a request wants `len(tokens) - num_computed` tokens, and a step hands out what its budget allows.
A decoding request wants one, so those come first and no stream starves behind a prompt; the rest is given in order of
arrival. The oldest request is never preempted, so somebody always gets to the end.

The last token of a prompt is computed in a step of its own, as every later one is: matrix kernels for one row and for
many round differently, and so a prompt that is found in the cache goes on exactly as one that was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from mm35local.engine.backend import Chunk
from mm35local.engine.request import Request

HEADROOM = 32
"""Cells kept for the growth of every admitted request, so that admitting one does not at once preempt another."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The step: preempt these, youngest first, then compute those."""

    preempted: tuple[Request, ...]
    chunks: tuple[Chunk, ...]


def schedule(
    running: Collection[Request], *, n_batch: int, n_ctx: int, num_held: Callable[[Collection[Request]], int]
) -> Schedule:
    """Hand out at most `n_batch` tokens; `num_held` counts the cells that some of the requests hold, out of `n_ctx`.

    When the tokens need more cells, the youngest requests give theirs back.
    """
    survivors = sorted(running, key=lambda request: request.arrival)
    preempted: list[Request] = []
    while True:
        chunks = _hand_out(survivors, n_batch)
        if len(survivors) <= 1 or sum(chunk.num_rows for chunk in chunks) + num_held(survivors) <= n_ctx:
            return Schedule(tuple(preempted), tuple(chunks))
        preempted.append(survivors.pop())


def num_reserved(request: Request) -> int:
    """Cells of a request while it runs: its tokens and a little growth."""
    return min(len(request.tokens) + HEADROOM, request.max_total)


def _hand_out(requests: Iterable[Request], budget: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    for request in sorted(requests, key=lambda request: (request.num_wanted > 1, request.arrival)):
        num_tokens = min(max(request.num_wanted - 1, 1), budget)
        if num_tokens == 0:
            break
        chunks.append(_chunk(request, num_tokens))
        budget -= num_tokens
    return chunks


def _chunk(request: Request, num_tokens: int) -> Chunk:
    assert request.slot is not None, "only admitted requests are scheduled"
    start, end = request.num_computed, request.num_computed + num_tokens
    return Chunk(request.request_id, request.slot, start, request.tokens[start:end], end == len(request.tokens))
