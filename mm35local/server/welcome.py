"""GET / and /v1: what answers here and what it is asked, for who tries the bare address."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from mm35local import __version__
from mm35local.server.service import Service

router = APIRouter()


@router.get("/", response_model=None, include_in_schema=False)
@router.get("/v1", response_model=None, include_in_schema=False)
async def welcome(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    paths = request.app.openapi()["paths"]
    return JSONResponse(
        {
            "server": "mm35local",
            "version": __version__,
            "model": service.model.id,
            "status": service.status.state.value,
            "endpoints": [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods],
            "clients": "`mm35 connect` prints the settings of editors and agents",
        }
    )
