"""What /openapi.json says of bodies: endpoints read them as bytes themselves, so FastAPI cannot know.

Invariant: a body is described by the very class that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mm35local.server.chat_request import ChatRequest
from mm35local.server.completions import CompletionRequest
from mm35local.server.messages_request import MessagesRequest
from mm35local.server.responses_request import ResponsesRequest
from mm35local.server.tokens import DetokenizeRequest, TokenizeRequest

_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": MessagesRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
    "/apply-template": ChatRequest,
}


def install(app: FastAPI) -> None:
    """Completes `app`'s page, which is made when first asked for."""
    make = app.openapi

    def page() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_bodies(make())
        return app.openapi_schema

    app.openapi = page  # type: ignore[method-assign]


def _with_bodies(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [(kind, "validation") for kind in dict.fromkeys(_BODIES.values())]
    references, definitions = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schema["components"]["schemas"].update(definitions["$defs"])
    for path, kind in _BODIES.items():
        content = {"application/json": {"schema": references[kind, "validation"]}}
        schema["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    return schema
