"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's wire around a turn."""

from __future__ import annotations

import asyncio
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from mm35local.server.answers import respond
from mm35local.server.clients import client_of
from mm35local.server.messages_request import MessagesRequest
from mm35local.server.messages_writer import MessagesWriter
from mm35local.server.notes import note_headers
from mm35local.server.parsing import parse
from mm35local.server.security import read_body
from mm35local.server.service import Service

router = APIRouter()


@router.post("/v1/messages", response_model=None)
async def messages(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = parse(MessagesRequest, await read_body(request))
    dialect = service.dialect()
    await service.images.read(asked.contents)
    turn = asked.turn(service.sampling_for(asked), datetime.now().astimezone())
    headers = note_headers(asked.effort, dialect, asked.tool_notes, has_tools=bool(asked.tools))
    events = service.answer(turn, "messages", client_of(request))
    return await respond(
        request, [events], MessagesWriter(service.model.id), streams=bool(asked.stream), headers=headers
    )


@router.post("/v1/messages/count_tokens", response_model=None)
async def count_tokens(request: Request) -> JSONResponse:
    service: Service = request.app.state.service
    asked = parse(MessagesRequest, await read_body(request))
    await service.images.read(asked.contents)
    conversation = asked.conversation(datetime.now().astimezone())
    parts = await asyncio.to_thread(service.dialect().render, conversation)
    return JSONResponse({"input_tokens": len(await service.engine.tokenize(parts))})
