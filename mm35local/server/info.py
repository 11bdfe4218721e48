"""What a client may know before it asks: which model, how long its context, whether it is ready."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from mm35local import __version__
from mm35local.engine.api import EngineState, EngineStatus
from mm35local.errors import EngineError, EngineLoading
from mm35local.server.model import ServedModel
from mm35local.server.problems import to_problem
from mm35local.server.service import Service

router = APIRouter()
_SERVER = "mm35local"


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_entry(service)]})


@router.get("/v1/models/{name:path}", response_model=None)
async def model(request: Request, name: str) -> JSONResponse:
    """Whatever it is called: every name is answered by the loaded model."""
    return JSONResponse(_entry(request.app.state.service))


@router.get("/health", response_model=None)
async def health(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    status = service.status
    body: dict[str, Any] = {
        "status": status.state.value,
        "server": _SERVER,
        "version": __version__,
        "model": _model_facts(service.model, status),
        "restarts": status.num_restarts,
    }
    if status.state is EngineState.READY:
        total = status.info.num_slots if status.info else 0
        return JSONResponse({**body, "slots": {"total": total, "busy": min(status.num_running, total)}})
    return JSONResponse({**body, "progress": status.progress, **_error(status)}, 503)


def _error(status: EngineStatus) -> dict[str, Any]:
    """As llama-server's clients know it: `code` is the HTTP status here."""
    known = EngineLoading(status.progress) if status.state is EngineState.LOADING else status.error
    problem = to_problem(known or EngineError("the engine failed"))
    return {"error": {"message": problem.message, "type": "unavailable_error", "code": 503}}


def _model_facts(model: ServedModel, status: EngineStatus) -> dict[str, Any]:
    return {
        "id": model.id,
        "n_ctx": status.info.n_ctx if status.info else None,
        "n_ctx_train": model.n_ctx_train,
        "size_bytes": model.size_bytes,
        "license": model.license,
        "reason": model.reason,
    }


def _entry(service: Service) -> dict[str, Any]:
    """The context length under every name that clients look for; null until the model is loaded."""
    info, model = service.engine.status.info, service.model
    n_ctx = info.n_ctx if info else None
    return {
        "id": model.id,
        "object": "model",
        "created": service.created,
        "owned_by": _SERVER,
        "context_length": n_ctx,
        "max_model_len": n_ctx,
        "context_window": n_ctx,
        "meta": {"n_ctx": n_ctx, "n_ctx_train": model.n_ctx_train, "size": model.size_bytes},
    }
