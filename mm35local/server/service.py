"""The engine, its model and the model's dialect, from start to close.

Invariant: starting returns at once; until everything is loaded, requests are refused with EngineLoading while the
socket already answers.
"""

from __future__ import annotations

import asyncio
import time

from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.engine.api import Engine, EngineState, EngineStatus
from mm35local.errors import EngineError, EngineLoading, Mm35Error
from mm35local.server.model import ServedModel

_ALMOST = 0.99


class Service:
    def __init__(self, engine: Engine, model: ServedModel) -> None:
        self.engine = engine
        self.model = model
        self.created = int(time.time())
        self._dialect: asyncio.Task[Dialect] | None = None

    async def start(self) -> None:
        self._dialect = asyncio.create_task(asyncio.to_thread(load_dialect, self.model.metadata, self.model.id))
        await self.engine.start()

    async def aclose(self) -> None:
        """Ends every request; safe to call twice."""
        await self.engine.aclose()
        if self._dialect is not None:
            await asyncio.wait({self._dialect})

    @property
    def status(self) -> EngineStatus:
        """The engine's, but READY only when the dialect is too."""
        status, dialect = self.engine.status, self._dialect
        if status.state is EngineState.FAILED:
            return status
        if dialect is None or not dialect.done():
            return EngineStatus(EngineState.LOADING, min(status.progress, _ALMOST), num_restarts=status.num_restarts)
        if error := dialect.exception():
            known = error if isinstance(error, Mm35Error) else EngineError(f"{type(error).__name__}: {error}")
            return EngineStatus(EngineState.FAILED, error=known, num_restarts=status.num_restarts)
        return status

    def dialect(self) -> Dialect:
        """Raises EngineLoading while loading, and what went wrong if loading failed."""
        status = self.status
        if status.state is EngineState.FAILED:
            raise (status.error or EngineError("the engine failed")).with_traceback(None)
        if status.state is EngineState.LOADING or self._dialect is None:
            raise EngineLoading(status.progress)
        return self._dialect.result()
