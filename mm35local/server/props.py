"""What llama-server's clients ask before they talk: /props, /slots and /metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from mm35local import __version__
from mm35local.chat.dialect import Dialect
from mm35local.chat.messages import Effort
from mm35local.engine.api import CellUse
from mm35local.engine.measured import Measured, compare
from mm35local.server.service import Service
from mm35local.server.stopwatch import Stopwatch
from mm35local.types import SamplingParams

router = APIRouter()


@router.get("/props", response_model=None)
@router.get("/v1/props", response_model=None, include_in_schema=False)
async def props(request: Request) -> JSONResponse:
    """Raises EngineLoading until the model is loaded: half the answers would be wrong before."""
    service: Service = request.app.state.service
    dialect = service.dialect()
    info, metadata = service.info, service.model.metadata
    return JSONResponse(
        {
            "default_generation_settings": {
                "n_ctx": info.n_ctx,
                "params": _params(service.model.sampling_for(Effort.NONE)),
            },
            "total_slots": info.num_slots,
            "model_alias": service.model.id,
            "model_path": service.model.id,
            "modalities": {"vision": dialect.has_vision, "audio": False},
            "chat_template": str(metadata.get("tokenizer.chat_template", "")),
            "chat_template_caps": _caps(dialect),
            "bos_token": dialect.vocabulary.spelling("bos"),
            "eos_token": dialect.vocabulary.spelling("eos"),
            "build_info": f"mm35local {__version__}",
            "is_sleeping": False,
            "memory": [_memory(measured) for measured in compare(info.planned, info.buffers)],
        }
    )


@router.get("/slots", response_model=None)
async def slots(request: Request) -> JSONResponse:
    """One entry a slot; those of answers under way come first."""
    service: Service = request.app.state.service
    service.dialect()
    info = service.info
    busy = [(number, watch) for number, watch in service.activity.running.items() if watch.started_at is not None]
    entries = [_busy_slot(number, watch) for number, watch in busy[: info.num_slots]]
    entries += [{"is_processing": False, "id_task": -1}] * (info.num_slots - len(entries))
    common = {"n_ctx": info.n_ctx, **_cells(service.engine.status.cells)}
    return JSONResponse([{"id": i, **common, **entry} for i, entry in enumerate(entries)])


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return Response(service.activity.page(), media_type=CONTENT_TYPE_LATEST)


def _memory(measured: Measured) -> dict[str, Any]:
    return {
        "kind": measured.kind,
        "planned_bytes": measured.planned_bytes,
        "allocated_bytes": measured.allocated_bytes,
    }


def _cells(cells: CellUse) -> dict[str, Any]:
    """Of the one pool that all slots share."""
    store = cells.store
    return {
        "kv_cells_used": cells.num_used,
        "kv_cells_shared": cells.num_shared,
        "kv_store": {
            "states": store.num_disk_states,
            "bytes": store.disk_bytes,
            "ram_states": store.num_ram_states,
            "ram_bytes": store.ram_bytes,
        },
    }


def _busy_slot(number: int, watch: Stopwatch) -> dict[str, Any]:
    return {"is_processing": True, "id_task": number, "prompt_progress": watch.progress()}


def _params(sampling: SamplingParams) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "n_predict": sampling.max_tokens or -1,
        "reasoning_format": "auto",
    }


def _caps(dialect: Dialect) -> dict[str, bool]:
    return {
        "supports_system_role": True,
        "supports_string_content": True,
        "supports_typed_content": True,
        "supports_preserve_reasoning": dialect.has_effort,
        "supports_reasoning_effort": dialect.has_effort,
        "supports_tools": dialect.has_tools,
        "supports_tool_calls": dialect.has_tools,
        "supports_parallel_tool_calls": dialect.has_tools,
        "supports_object_arguments": dialect.has_tools,
    }
