"""Who gets which tokens this step. Pure: it reads the books of the requests and changes nothing.

There are no phases: a request wants `len(tokens) - num_computed` tokens, and a step hands out what its budget allows.
A decoding request wants one, so those come first and no stream starves behind a prompt; `prompt_share` bounds what
prompts get beside them, or short ones in turn with them. The prompt with the least left comes first, but each token
that others were given ahead of one counts as done for it, until it has been given as many: a short turn does not wait
for a long prompt, and a long one that was passed over by as many tokens as it has takes turns with short ones. The
oldest request is never preempted, so somebody always gets to the end.

Requests that come together get their first tokens first: while nothing but answers runs that have just begun, those
wait until the short prompts of the same burst are computed, in full batches.

A prompt that is found whole in the cache, with what follows it, takes no row; its first token is sampled at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mm35local.engine.backend import Chunk
from mm35local.engine.filling import BLOCK
from mm35local.engine.pace import PromptShare
from mm35local.engine.request import Request

HEADROOM = 32
"""Cells kept for the growth of every admitted request, so that admitting one does not at once preempt another."""
JUST_BEGUN = 4
"""Tokens of an answer that may still wait for prompts: requests sent at once take a few steps to arrive."""
BURST = 32
"""Requests that one belongs together with, counted from its own arrival: those that come later it does not wait for."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The step: preempt these, youngest first, then compute those."""

    preempted: tuple[Request, ...]
    chunks: tuple[Chunk, ...]


def schedule(
    running: Collection[Request],
    *,
    n_batch: int,
    n_ctx: int,
    num_held: Callable[[Collection[Request]], int],
    prompt_share: Callable[[Sequence[Request], Request], PromptShare] | None = None,
) -> Schedule:
    """Hand out at most `n_batch` tokens; `num_held` counts the cells that some of the requests hold, out of `n_ctx`;
    `prompt_share(streams, first)` tells how many tokens prompts may have, the first of them above all, beside the
    streams or instead.

    When the tokens need more cells, the youngest requests give theirs back.
    """
    survivors = sorted(running, key=lambda request: request.arrival)
    preempted: list[Request] = []
    while True:
        chunks = _hand_out(survivors, n_batch, prompt_share)
        if len(survivors) <= 1 or sum(chunk.num_rows for chunk in chunks) + num_held(survivors) <= n_ctx:
            return Schedule(tuple(preempted), tuple(chunks))
        preempted.append(survivors.pop())


def num_reserved(request: Request) -> int:
    """Cells of a request while it runs: its tokens and a little growth."""
    return min(len(request.tokens) + HEADROOM, request.max_total)


def _hand_out(
    requests: Sequence[Request],
    n_batch: int,
    prompt_share: Callable[[Sequence[Request], Request], PromptShare] | None,
) -> list[Chunk]:
    """`requests` in order of arrival."""
    streams = [request for request in requests if request.num_wanted <= 1]
    prompts = sorted((request for request in requests if request.num_wanted > 1), key=_prompt_order)
    if _is_burst(streams, prompts, n_batch):
        streams = [request for request in streams if not request.num_generated]
        prompts = [] if streams else prompts  # a first token takes one short step, a batch of prompts a long one
    streams = streams[: n_batch - 1 if prompts else n_batch]
    share = PromptShare(n_batch)
    if prompts and prompt_share is not None:
        share = prompt_share(streams, prompts[0])
    if share.is_apart:
        streams = [request for request in streams if not request.num_wanted]
    return [
        *(_chunk(request, request.num_wanted) for request in streams),
        *_prompt_chunks(prompts, share, n_batch - len(streams)),
    ]


def _prompt_chunks(prompts: Iterable[Request], share: PromptShare, room: int) -> Iterator[Chunk]:
    """At most `room` rows; of a prompt in blocks the first part takes what makes no whole one."""
    budget = min(share.num_tokens, room)
    for request in prompts:
        if budget <= 0:
            return
        num_tokens = min(request.num_wanted, budget)
        if share.is_apart:
            num_tokens = min(num_tokens + (request.num_wanted - num_tokens) % BLOCK, room)
        yield _chunk(request, num_tokens)
        budget, room = budget - num_tokens, room - num_tokens


def is_short(request: Request, n_batch: int) -> bool:
    """Is its prompt no longer than a batch? All counts, not what is left: the end of a long one is no short one."""
    return request.num_prompt_tokens - request.num_cached <= n_batch and not request.num_generated


def _is_burst(streams: Collection[Request], prompts: Sequence[Request], n_batch: int) -> bool:
    """Has every answer just begun, not long before the oldest of these prompts came that is a short one? The prompt
    whose turn it is must be one, too."""
    if not prompts or not is_short(prompts[0], n_batch):
        return False
    oldest = min((request.arrival for request in prompts if is_short(request, n_batch)), default=None)
    return oldest is not None and all(
        stream.num_generated <= JUST_BEGUN and oldest < stream.arrival + BURST for stream in streams
    )


def pass_over(running: Iterable[Request], chunks: Sequence[Chunk]) -> None:
    """Book what prompts that got less than they could take were passed over by; what they are given pays it back.

    Twice: it also brings them nearer to their end, for which the next ones must be nearer yet.
    """
    served = {chunk.request_id: len(chunk.token_ids) for chunk in chunks}
    num_given = sum(num_tokens for num_tokens in served.values() if num_tokens > 1)
    for request in running:
        if request.num_wanted > 1:
            own = served.get(request.request_id, 0)
            request.num_passed_over = max(0, request.num_passed_over + num_given - own - 2 * own)


def _prompt_order(request: Request) -> tuple[int, int]:
    return request.num_wanted - request.num_passed_over, request.arrival


def _chunk(request: Request, num_tokens: int) -> Chunk:
    assert request.slot is not None, "only admitted requests are scheduled"
    start, end = request.num_computed, request.num_computed + num_tokens
    return Chunk(request.request_id, request.slot, start, request.tokens[start:end], end == len(request.tokens))
