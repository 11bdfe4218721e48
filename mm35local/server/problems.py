"""The one mapping from errors to what goes over the wire: a status and OpenAI's error shape.

Invariant: a client sees every error in this shape and no traceback; what was not foreseen is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mm35local.errors import (
    EngineLoading,
    EngineOverloaded,
    LoadFailed,
    Mm35Error,
    ModelError,
    RequestError,
    WorkerDied,
)

_log = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}
_MAPPING: tuple[tuple[type[Mm35Error], int, str | None, int | None], ...] = (
    # error, status, code, seconds to wait before trying again
    (EngineLoading, 503, "loading", 2),
    (EngineOverloaded, 429, "overloaded", 1),
    (WorkerDied, 503, "worker_died", 2),
    (LoadFailed, 503, "load_failed", None),
    (ModelError, 503, "load_failed", None),
    (Mm35Error, 500, None, None),
)


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, dict(self.headers))


def to_problem(error: Exception) -> Problem:
    """Logs what is no error of ours, and tells the client nothing of it but that it happened."""
    if isinstance(error, RequestError):
        return Problem(400, _sentence(error), error.field, error.code)
    if isinstance(error, Mm35Error):
        return _ours(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers or {})
    _log.error("a request failed in a way nobody foresaw", exc_info=error)
    return Problem(500, "the server failed at this request; its log tells more")


def _ours(error: Mm35Error) -> Problem:
    status, code, seconds = next(row[1:] for row in _MAPPING if isinstance(error, row[0]))
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return Problem(status, _sentence(error), code=code, headers=headers)


async def problem_of(work: Awaitable[None]) -> Problem | None:
    """None if `work` ends well. For answers under way, which no exception handler of the application sees."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 the HTTP catch-all
        return to_problem(error)
    return None


def install(app: FastAPI) -> None:
    """Every error that leaves an endpoint of `app` is answered by this file."""
    for kind in (Mm35Error, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return to_problem(error).response()


def _sentence(error: Mm35Error) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
