"""GET /health: which model, and whether it takes requests: whoever spreads them over servers asks here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from mm35local import __version__
from mm35local.engine.api import EngineState, EngineStatus
from mm35local.engine.measured import bytes_on_cards
from mm35local.errors import EngineClosing, EngineError, EngineLoading, Mm35Error
from mm35local.server.model import ServedModel
from mm35local.server.problems import to_problem
from mm35local.server.service import Service

router = APIRouter()
_SERVER = "mm35local"


@router.get("/health", response_model=None)
@router.get("/v1/health", response_model=None, include_in_schema=False)
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
        busy, waiting = min(status.num_running, total), service.activity.num_waiting
        cards = bytes_on_cards(status.info.buffers) if status.info else {}
        memory = [{"device": device, "bytes": size} for device, size in cards.items()]
        ready = {**body, "slots": {"total": total, "busy": busy, "waiting": waiting}, "memory": memory}
        if service.is_draining:
            return JSONResponse({**ready, "status": "draining", **_unavailable(EngineClosing())}, 503)
        return JSONResponse(ready)
    return JSONResponse({**body, "progress": status.progress, **_rate(status), **_error(status)}, 503)


def _rate(status: EngineStatus) -> dict[str, Any]:
    """How the load goes; nothing before the weights are being read."""
    if status.loading is None:
        return {}
    return {
        "loaded_bytes": status.loading.loaded_bytes,
        "bytes_per_second": round(status.loading.bytes_per_second),
        "eta_seconds": status.loading.eta_seconds,
    }


def _error(status: EngineStatus) -> dict[str, Any]:
    """As llama-server's clients know it: `code` is the HTTP status here."""
    known = EngineLoading(status.progress) if status.state is EngineState.LOADING else status.error
    return _unavailable(known or EngineError("the engine failed"))


def _unavailable(error: Mm35Error) -> dict[str, Any]:
    problem = to_problem(error)
    return {"error": {"message": problem.message, "type": "unavailable_error", "code": 503}}


def _model_facts(model: ServedModel, status: EngineStatus) -> dict[str, Any]:
    return {
        "id": model.id,
        "n_ctx": status.info.n_ctx if status.info else None,
        "n_ctx_train": model.n_ctx_train,
        "size_bytes": model.size_bytes,
        "license": model.license,
        "vision": model.image_grid is not None,
        "reason": model.reason,
    }
