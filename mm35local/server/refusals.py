"""Endpoints that clients try and this model has no answer to: a reason instead of a 404."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from mm35local.errors import RequestError

router = APIRouter()
_CODE = "unsupported_endpoint"


@router.post("/v1/embeddings", response_model=None)
@router.post("/embeddings", response_model=None, include_in_schema=False)
async def embeddings(request: Request) -> Response:
    raise RequestError(
        "the loaded model makes text, not embeddings", "model", _CODE, "run an embedding model beside this server"
    )


@router.post("/v1/rerank", response_model=None, include_in_schema=False)
@router.post("/rerank", response_model=None, include_in_schema=False)
async def rerank(request: Request) -> Response:
    raise RequestError(
        "the loaded model makes text, not rankings", "model", _CODE, "run a reranking model beside this server"
    )


@router.post("/infill", response_model=None)
async def infill(request: Request) -> Response:
    raise RequestError(
        "llama-server's /infill is not spoken here", None, _CODE, "send prompt and suffix to /v1/completions"
    )
