"""GET /v1/models: the one loaded model, described so that every known client finds its limits.

Invariant: whatever name a client asks for, it is answered by this model.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from mm35local.engine.api import EngineState
from mm35local.server.service import Service

router = APIRouter()
_OWNER = "mm35local"
_ANTHROPIC_HEADER = "anthropic-version"
_EFFORTS = (("none", "Answers at once"), ("high", "Thinks before it answers"))


@router.get("/v1/models", response_model=None)
@router.get("/models", response_model=None, include_in_schema=False)
async def models(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_entry(request)], "models": [_codex_entry(service)]})


@router.get("/v1/models/{name:path}", response_model=None)
async def model(request: Request, name: str) -> JSONResponse:
    return JSONResponse(_entry(request))


def _entry(request: Request) -> dict[str, Any]:
    """The context length under every name that clients look for; null until the model is loaded."""
    service: Service = request.app.state.service
    info, served = service.engine.status.info, service.model
    n_ctx = info.n_ctx if info else None
    dialect = service.dialect() if service.status.state is EngineState.READY else None
    return {
        "id": served.id,
        "object": "model",
        "type": "model" if _ANTHROPIC_HEADER in request.headers else "base",  # Mistral's client knows no other
        "display_name": served.id,
        "created": service.created,
        "owned_by": _OWNER,
        "context_length": n_ctx,
        "max_model_len": n_ctx,
        "context_window": n_ctx,
        "max_context_length": n_ctx,
        "capabilities": {
            "completion_chat": True,
            "completion_fim": False,
            "function_calling": dialect is not None and dialect.has_tools,
            "fine_tuning": False,
            "vision": dialect is not None and dialect.has_vision,
        },
        "meta": {
            "n_ctx": n_ctx,
            "n_ctx_train": served.n_ctx_train,
            "n_vocab": info.n_vocab if info else None,
            "size": served.size_bytes,
        },
    }


def _codex_entry(service: Service) -> dict[str, Any]:
    """The shape in which Codex keeps what it knows of a model; without it, it guesses the limits."""
    info, served = service.engine.status.info, service.model
    is_loaded = service.status.state is EngineState.READY
    dialect = service.dialect() if is_loaded else None
    has_effort = dialect is not None and dialect.has_effort
    return {
        "slug": served.id,
        "display_name": served.id,
        "description": f"{served.id}, on this machine",
        "default_reasoning_level": "none" if has_effort else None,
        "supported_reasoning_levels": [
            {"effort": effort, "description": text} for effort, text in _EFFORTS if has_effort
        ],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
        "upgrade": None,
        "base_instructions": "",
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": dialect is not None and dialect.has_tools,
        "context_window": info.n_ctx if info else None,
        "max_context_window": info.n_ctx if info else None,
        "auto_compact_token_limit": None,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"] if dialect is not None and dialect.has_vision else ["text"],
    }
