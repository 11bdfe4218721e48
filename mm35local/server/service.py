"""The engine, its model and the model's dialect, from start to close.

Invariant: starting returns at once; until everything is loaded, requests are refused with EngineLoading while the
socket already answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Effort
from mm35local.chat.turn import Turn, TurnEvent, run_turn
from mm35local.engine.api import Engine, EngineInfo, EngineState, EngineStatus
from mm35local.errors import EngineClosing, EngineError, EngineLoading, Mm35Error
from mm35local.server.activity import Activity
from mm35local.server.effort import EffortFields
from mm35local.server.fetch import Fetcher
from mm35local.server.images import ImageReader
from mm35local.server.model import ServedModel
from mm35local.types import SamplingParams

_ALMOST = 0.99
_SECONDS_BETWEEN_LOOKS = 0.05


class Service:
    def __init__(self, engine: Engine, model: ServedModel, fetcher: Fetcher | None = None) -> None:
        self.engine = engine
        self.model = model
        self.created = int(time.time())
        self.activity = Activity(engine)
        self.images = ImageReader(model.image_grid, fetcher or Fetcher())
        self._dialect: asyncio.Task[Dialect] | None = None
        self._is_draining = False

    async def start(self) -> None:
        has_vision = self.model.image_grid is not None
        loading = asyncio.to_thread(
            load_dialect, self.model.metadata, self.model.id, has_vision=has_vision, prepares_grammars=True
        )
        self._dialect = asyncio.create_task(loading)
        await self.engine.start()

    @property
    def is_draining(self) -> bool:
        """Are answers under way the last ones?"""
        return self._is_draining

    async def drain(self, seconds: float) -> None:
        """Take no more answers, and give those under way so long to end."""
        self._is_draining = True
        deadline = time.monotonic() + seconds
        while self.activity.running and time.monotonic() < deadline:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    async def aclose(self) -> None:
        """Ends every request; safe to call twice."""
        await self.engine.aclose()
        if self._dialect is not None:
            # `status` has told of its error, and asks it still where this is cancelled.
            await asyncio.gather(asyncio.shield(self._dialect), return_exceptions=True)

    @property
    def status(self) -> EngineStatus:
        """The engine's, but READY only when the dialect is too."""
        status, dialect = self.engine.status, self._dialect
        if status.state is EngineState.FAILED:
            return status
        if dialect is None or not dialect.done():
            return EngineStatus(
                EngineState.LOADING,
                min(status.progress, _ALMOST),
                num_restarts=status.num_restarts,
                loading=status.loading,
            )
        if error := dialect.exception():
            known = error if isinstance(error, Mm35Error) else EngineError(f"{type(error).__name__}: {error}")
            return EngineStatus(EngineState.FAILED, error=known, num_restarts=status.num_restarts)
        return status

    @property
    def info(self) -> EngineInfo:
        """Raises EngineLoading while there is none."""
        status = self.engine.status
        if status.info is None:
            raise EngineLoading(status.progress)
        return status.info

    def sampling_for(self, asked: EffortFields) -> SamplingParams:
        """The model's own defaults for the effort that is asked for."""
        return self.model.sampling_for(asked.effort)

    def own_sampling(self, turn: Turn) -> Turn:
        """`turn`, with the model's own temperature and top_p where the server is told to keep to them."""
        if not (self.model.keeps_own_sampling and turn.conversation.effort is Effort.HIGH):
            return turn
        own = self.model.sampling_for(Effort.HIGH)
        return replace(turn, params=replace(turn.params, temperature=own.temperature, top_p=own.top_p))

    def answer(
        self, turn: Turn, wire: str, client: str, dialect: Dialect | None = None
    ) -> AsyncGenerator[TurnEvent, None]:
        """The events of one turn, counted under `wire`; in the model's dialect unless another is given.

        Raises what `dialect` raises, or EngineClosing while the server drains, at once.
        """
        if self._is_draining:
            raise EngineClosing
        turn = replace(self.own_sampling(turn), client=client)
        events = run_turn(self.engine, dialect or self.dialect(), turn)
        return self.activity.watch(events, wire)

    def dialect(self) -> Dialect:
        """Raises EngineLoading while loading, and what went wrong if loading failed."""
        status = self.status
        if status.state is EngineState.FAILED:
            raise (status.error or EngineError("the engine failed")).with_traceback(None)
        if status.state is EngineState.LOADING or self._dialect is None:
            raise EngineLoading(status.progress)
        return self._dialect.result()
