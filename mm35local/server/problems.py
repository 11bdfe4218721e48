"""The one mapping from errors to what goes over the wire: a status, and the error shape of the wire it came on.

Invariant: a client sees every error in its wire's shape and no traceback; what was not foreseen is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mm35local.errors import (
    ContextLengthExceeded,
    EngineClosing,
    EngineGivenUp,
    EngineLoading,
    EngineOverloaded,
    GrammarFailed,
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
_ANTHROPIC_PATH = "/v1/messages"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
_MAPPING: tuple[tuple[type[Mm35Error], int, str | None, int | None], ...] = (
    # error, status, code, seconds to wait before trying again
    (EngineLoading, 503, "loading", 2),
    (EngineClosing, 503, "shutting_down", 5),
    (EngineOverloaded, 429, "overloaded", 1),
    (EngineGivenUp, 503, "engine_failed", None),
    (WorkerDied, 503, "worker_died", 2),
    (GrammarFailed, 400, "grammar_failed", None),
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
    anthropic_message: str | None = None
    """Where Anthropic's clients read figures out of the words."""

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def anthropic_body(self) -> dict[str, Any]:
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": self.anthropic_message or self.message}}

    def response(self, path: str) -> JSONResponse:
        """In the shape of the wire that speaks under `path`."""
        body = self.anthropic_body if path.startswith(_ANTHROPIC_PATH) else self.body
        return JSONResponse(body, self.status, dict(self.headers))


def to_problem(error: Exception) -> Problem:
    """Logs what is no error of ours, and tells the client nothing of it but that it happened."""
    if isinstance(error, ContextLengthExceeded):
        words = _anthropic_words(error)
        return Problem(400, _sentence(error), error.field, error.code, anthropic_message=words)
    if isinstance(error, RequestError):
        return Problem(400, _sentence(error), error.field, error.code)
    if isinstance(error, Mm35Error):
        return _ours(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers or {})
    _log.error("a request failed in a way nobody foresaw", exc_info=error)
    return Problem(500, "the server failed at this request; its log tells more")


def _anthropic_words(error: ContextLengthExceeded) -> str:
    """Anthropic's own: agents match them to shorten the conversation or to ask for less."""
    if error.num_prompt_tokens < error.n_ctx and error.num_max_tokens:
        return (
            f"input length and `max_tokens` exceed context limit: {error.num_prompt_tokens} + {error.num_max_tokens} "
            f"> {error.n_ctx}, decrease input length or `max_tokens` and try again"
        )
    return f"prompt is too long: {error.num_prompt_tokens} tokens > {error.n_ctx} maximum"


def _ours(error: Mm35Error) -> Problem:
    status, code, seconds = next(row[1:] for row in _MAPPING if isinstance(error, row[0]))
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return Problem(status, _sentence(error), code=code, headers=headers)


async def problem_of(work: Awaitable[None]) -> Problem | None:
    """None if `work` ends well. For answers under way, which no exception handler of the application sees."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 the HTTP catch-all
        return noted(to_problem(error))
    return None


def noted(problem: Problem) -> Problem:
    """Every refusal leaves a line in the log, for who wonders why an agent says that it failed."""
    _log.info("%d %s: %.300s", problem.status, problem.code or problem.body["error"]["type"], problem.message)
    return problem


def install(app: FastAPI) -> None:
    """Every error that leaves an endpoint of `app` is answered by this file."""
    for kind in (Mm35Error, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    problem = to_problem(error)
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        problem = replace(problem, message=_nobody_home(request, problem.headers.get("Allow")))
    return noted(problem).response(request.url.path)


def _nobody_home(request: Request, allowed: str | None) -> str:
    """Most who come to a wrong door have a base URL with one /v1 too many, or none."""
    path = request.url.path
    asked = f"{request.method} {path[:120]}"
    if allowed:
        return f"{asked}: this path takes {allowed}"
    meant = next((each for each in request.app.openapi()["paths"] if path.endswith(each.removeprefix("/v1"))), None)
    return f"{asked}: no such endpoint; {f'{meant} is meant?' if meant else 'GET / lists those there are'}"


def _sentence(error: Mm35Error) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
