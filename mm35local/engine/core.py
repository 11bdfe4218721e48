"""The engine without its process: commands in, steps, events out. Tests drive it directly.

Invariant: a request is in exactly one of `waiting` and `running` from its Submit to its one terminal event.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from mm35local.engine.admission import Admission
from mm35local.engine.api import Cancel, CellUse, Failed, Finished, Progress, RequestEvent, Started, Submit, Tokens
from mm35local.engine.backend import ABORTED, NO_CELLS, Backend, Chunk
from mm35local.engine.fairness import surplus
from mm35local.engine.kv_pool import KvPool
from mm35local.engine.kv_store import KvStore
from mm35local.engine.log_tail import print_survived
from mm35local.engine.pace import Pace, PromptShare
from mm35local.engine.prefix_cache import Hit
from mm35local.engine.request import Request, accept
from mm35local.engine.restorer import Restorer
from mm35local.engine.scheduler import is_short, num_reserved, pass_over, schedule
from mm35local.engine.speculation import Speculator
from mm35local.engine.timed_steps import TimedSteps, count_rows
from mm35local.errors import DecodeFailed, EngineError, EngineOverloaded, Mm35Error, RequestError
from mm35local.types import FinishReason, TokenLogprobs


class EngineCore:
    """Decides with `admission` and `scheduler`, computes with a `Backend`, books in `request` and `kv_pool`."""

    def __init__(
        self,
        backend: Backend,
        *,
        n_ctx: int,
        num_slots: int,
        n_batch: int,
        max_waiting: int,
        store: KvStore | None = None,
        clock: Callable[[], float] = time.monotonic,
        speculator: Speculator | None = None,
    ) -> None:
        """Without a `speculator` nothing is guessed."""
        self._backend = backend
        self._speculator = speculator or Speculator(())
        self._n_ctx = n_ctx
        self._n_batch = n_batch
        self._max_waiting = max_waiting
        self._pace = Pace()
        self._pool = KvPool(backend, n_ctx=n_ctx, store=store)
        self._steps = TimedSteps(backend, self._pool, self._pace, self._speculator, clock)
        self._restorer = Restorer(self._pool, store)
        self._admission = Admission(self._pool, self._restorer, n_ctx=n_ctx, num_slots=num_slots)
        self._waiting: list[Request] = []
        self._running: dict[int, Request] = {}
        self._events: list[RequestEvent] = []
        self._num_arrived = 0

    @property
    def has_work(self) -> bool:
        """Is there anything to compute, or on its way back from the disk?"""
        return bool(self._running or self._waiting) or self._restorer.is_reading

    @property
    def is_steady(self) -> bool:
        """Do all answers go on, with nothing else to compute but long prompts beside them?"""
        if self._waiting or not self._running:
            return False
        return all(
            request.num_wanted == 1 or not is_short(request, self._n_batch) for request in self._running.values()
        )

    @property
    def first_step_seconds(self) -> float:
        """What the next step is expected to take where all requests are at their prompts; else infinity: unknown."""
        if not self._running or any(request.num_generated for request in self._running.values()):
            return math.inf
        num_rows = sum(request.num_wanted for request in self._running.values())
        return self._pace.prompt_seconds(min(num_rows, self._n_batch))

    @property
    def num_used_cells(self) -> int:
        return self._pool.num_used_cells

    @property
    def cell_use(self) -> CellUse:
        return self._pool.use

    def submit(self, command: Submit) -> None:
        """Start or queue a request; a hopeless one, or one more than may wait, gets its Failed."""
        self._num_arrived += 1
        try:
            request = accept(
                command,
                arrival=self._num_arrived,
                n_ctx=self._n_ctx,
                n_vocab=self._backend.n_vocab,
                grid=self._backend.image_grid,
            )
        except Exception as error:  # noqa: BLE001 see _refuse
            self._refuse(command.request_id, error)
            return
        self._enqueue(request)

    def cancel(self, command: Cancel) -> None:
        """End a request with CANCELLED; what it computed stays in the cache. Unknown ids are ignored."""
        request = self._running.get(command.request_id) or next(
            (waiting for waiting in self._waiting if waiting.request_id == command.request_id), None
        )
        if request is not None:
            self._finish(request, FinishReason.CANCELLED)

    def cancel_all(self) -> None:
        for request in [*self._running.values(), *self._waiting]:
            self._finish(request, FinishReason.CANCELLED)

    def step(self) -> list[RequestEvent]:
        """Compute at most `n_batch` tokens, and tell everything that happened since the last step.

        While all there is waits for a saved state, a step waits a little for that.
        """
        self._admit()
        if not self._running:
            self._restorer.wait()
        plan = schedule(
            self._running.values(),
            n_batch=self._n_batch,
            n_ctx=self._n_ctx,
            num_held=self._num_held,
            prompt_share=self._prompt_share,
        )
        pass_over(self._running.values(), plan.chunks)
        for request in plan.preempted:
            self._preempt(request)
        room = self._room_for_drafts(plan.chunks)
        filled = partial(self._steps.filled, plan.chunks)
        self._compute(self._speculator.add_drafts(plan.chunks, self._running, room, filled))
        return self.take_events()

    def take_events(self) -> list[RequestEvent]:
        """What happened since events were last taken; a step takes them itself."""
        events, self._events = self._events, []
        return events

    def save_cache(self) -> None:
        """Put every ended sequence into the store, before the end."""
        self._pool.save_all()

    def copy_ahead(self) -> None:
        """While there is nothing to do: prepare for another conversation than the one that ended last."""
        self._pool.copy_ahead()

    def fault(self) -> str | None:
        """What is wrong with the books of the cells; None if nothing is."""
        return self._pool.fault()

    def clear_cache(self) -> None:
        """Forget every ended sequence; nothing may be running or waiting."""
        self._pool.clear()

    # --- deciding ---

    def _enqueue(self, request: Request) -> None:
        self._waiting.append(request)
        self._admit()
        if request.slot is None and len(self._waiting) > self._max_waiting:
            refused = surplus(self._waiting)
            self._close(refused)
            self._events.append(Failed(refused.request_id, EngineOverloaded(self._max_waiting)))

    def _admit(self) -> None:
        """Start waiting requests as long as there are slots and cells."""
        while admitted := self._admission.next(self._waiting, self._running):
            self._waiting.remove(admitted[0])
            self._start(*admitted)

    def _start(self, request: Request, hit: Hit) -> None:
        request.slot, request.num_computed = self._pool.take(hit)
        self._running[request.request_id] = request
        self._pool.thin_out(num_reserved(request) - request.num_computed)
        if not request.is_started:
            request.is_started = True
            request.num_cached = request.num_computed
            self._open(request)

    def _open(self, request: Request) -> None:
        try:
            self._backend.open(request.request_id, request.params, request.tokens, request.images)
        except Exception as error:  # noqa: BLE001 see _refuse
            self._close(request)
            self._refuse(request.request_id, error)
            return
        self._events.append(Started(request.request_id, request.num_prompt_tokens, request.num_cached))

    def _refuse(self, request_id: int, error: Exception) -> None:
        """One request's surprise must not take the others with it."""
        if not isinstance(error, RequestError):
            print_survived(error)
            error = EngineError(f"the request could not be started: {error}")
        self._events.append(Failed(request_id, error))

    def _preempt(self, request: Request) -> None:
        """Back to the queue; its tokens are its prompt then, and its sampler stays where it was."""
        self._release(request)
        self._speculator.close(request.request_id)
        request.is_looked_up = False  # its cells may be saved before it is back
        bisect.insort(self._waiting, request, key=lambda waiting: waiting.arrival)

    def _prompt_share(self, streams: Sequence[Request], prompt: Request) -> PromptShare:
        slots = [request.slot for request in (*streams, prompt) if request.slot is not None]
        return self._pace.prompt_share(
            len(streams),
            self._n_batch,
            is_short=is_short(prompt, self._n_batch),
            block_seconds=self._steps.block_seconds(slots, self._n_batch),
        )

    def _room_for_drafts(self, chunks: Sequence[Chunk]) -> int:
        """Rows that this step could have more."""
        num_free = self._n_ctx - self._num_held(self._running.values())
        num_streams, _, num_prompt_rows = count_rows(chunks)
        room = max(0, min(self._n_batch, num_free) - num_streams - num_prompt_rows)
        if num_prompt_rows:
            room = self._steps.room_in_block(num_streams + num_prompt_rows, room)
        return self._pace.draft_budget(num_streams, num_prompt_rows, room)

    def _num_held(self, requests: Collection[Request]) -> int:
        """Cells that these running requests hold, shared ones counted once."""
        return self._pool.num_held([request.slot for request in requests if request.slot is not None])

    # --- computing ---

    def _compute(self, chunks: Sequence[Chunk]) -> None:
        while chunks:
            self._pool.make_room(sum(chunk.num_rows for chunk in chunks))
            try:
                sampled = self._steps.compute(chunks)
            except DecodeFailed as error:
                chunks = self._recover(chunks, error)
                continue
            for chunk, token_ids in zip(chunks, sampled, strict=True):
                self._book(chunk, token_ids)
            return

    def _recover(self, chunks: Sequence[Chunk], error: DecodeFailed) -> Sequence[Chunk]:
        """Undo what a failed step left behind; returns what to try again at once."""
        for chunk in chunks:
            self._running[chunk.request_id].num_computed = self._pool.trim(chunk.slot, chunk.start)
        if error.code == ABORTED:
            return ()
        if error.code == NO_CELLS and self._make_room():
            return self._still_due(chunks)
        if len(chunks) == 1:
            self._fail(self._running[chunks[0].request_id], error)
            return ()
        for chunk in chunks:
            self._compute(self._still_due([chunk]))
        return ()

    def _still_due(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those whose request was not preempted, nor lost more than the chunk when it was trimmed."""
        due = [(chunk, self._running.get(chunk.request_id)) for chunk in chunks]
        return [chunk for chunk, request in due if request is not None and request.num_computed == chunk.start]

    def _make_room(self) -> bool:
        """The backend has fewer cells than the books say: give up a cached sequence, else the youngest request."""
        if self._pool.evict(1):
            return True
        if len(self._running) <= 1:
            return False
        self._preempt(max(self._running.values(), key=lambda request: request.arrival))
        return True

    # --- booking ---

    def _book(self, chunk: Chunk, sampled: tuple[int, ...]) -> None:
        request = self._running[chunk.request_id]
        self._advance(request, chunk.token_ids)
        if sampled:
            self._append(request, chunk, sampled)
        elif request.num_wanted > 1 and not request.num_generated:
            self._events.append(Progress(request.request_id, request.num_computed, request.num_prompt_tokens))

    def _advance(self, request: Request, token_ids: Sequence[int]) -> None:
        """These are in the cells now."""
        if not token_ids:
            return
        assert request.slot is not None, "only running requests are computed"
        self._pool.append(request.slot, token_ids)
        request.num_computed += len(token_ids)

    def _append(self, request: Request, chunk: Chunk, sampled: tuple[int, ...]) -> None:
        """The answer goes on with `sampled`, as far as it may; all but the last of them are computed already."""
        self._speculator.observe(chunk, sampled)
        num_drafted, num_accepted = len(chunk.drafts), min(len(sampled) - 1, len(chunk.drafts))
        request.num_drafted += num_drafted
        request.num_accepted += num_accepted
        answer, reason = self._cut(request, sampled)
        self._advance(request, answer[: len(sampled) - 1])
        request.tokens += answer
        if request.num_computed < chunk.start + chunk.num_rows:
            assert request.slot is not None, "it is running"
            num_kept = self._pool.trim(request.slot, request.num_computed)
            if num_kept < request.num_computed:
                self._speculator.give_up()  # an architecture that cannot forget a part would compute all again
            request.num_computed = num_kept
        if answer:
            logprobs = self._logprobs(request)[: len(answer)]
            self._events.append(Tokens(request.request_id, answer, logprobs, num_drafted, num_accepted))
        if reason is not None:
            self._finish(request, reason)

    def _logprobs(self, request: Request) -> tuple[TokenLogprobs, ...]:
        return () if request.params.num_logprobs is None else self._backend.take_logprobs(request.request_id)

    def _cut(self, request: Request, sampled: tuple[int, ...]) -> tuple[tuple[int, ...], FinishReason | None]:
        """Those before the end of the answer, and why it ends there; None if it goes on."""
        room = request.max_total - len(request.tokens)
        for num_before, token_id in enumerate(sampled[:room]):
            if self._backend.is_eog(token_id):
                return sampled[:num_before], FinishReason.STOP
        return sampled[:room], FinishReason.LENGTH if len(sampled) >= room else None

    def _finish(self, request: Request, reason: FinishReason) -> None:
        self._close(request)
        self._events.append(Finished(request.request_id, reason, request.usage()))

    def _fail(self, request: Request, error: Mm35Error) -> None:
        """Its cells are not trusted any more."""
        assert request.slot is not None, "only running requests fail"
        request.num_computed = self._pool.trim(request.slot, 0)
        self._close(request)
        self._events.append(Failed(request.request_id, error))

    def _close(self, request: Request) -> None:
        if request.slot is None:
            self._waiting.remove(request)
            self._restorer.give_up(request)
        else:
            self._release(request)
        self._backend.close(request.request_id)
        self._speculator.close(request.request_id)

    def _release(self, request: Request) -> None:
        """The request leaves its slot; its computed tokens stay there until somebody needs the cells."""
        assert request.slot is not None, "only running requests hold a slot"
        del self._running[request.request_id]
        self._pool.release(request.slot)
        request.slot = None
        request.num_computed = 0
