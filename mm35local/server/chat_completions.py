"""POST /v1/chat/completions: OpenAI's wire around a turn, streamed or in one piece, once or `n` times."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from mm35local.server.answers import respond, with_own_seeds
from mm35local.server.chat_request import ChatRequest
from mm35local.server.chat_writer import ChatWriter
from mm35local.server.clients import client_of
from mm35local.server.notes import note_headers
from mm35local.server.parsing import parse
from mm35local.server.security import read_body
from mm35local.server.service import Service

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
@router.post("/chat/completions", response_model=None, include_in_schema=False)
async def chat_completions(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = parse(ChatRequest, await read_body(request))
    dialect = service.dialect()
    await service.images.read(asked.contents)
    turn = asked.turn(service.sampling_for(asked), datetime.now().astimezone())
    writer = ChatWriter(
        service.model.id,
        num_choices=asked.n or 1,
        wants_usage=asked.wants_usage,
        wants_progress=bool(asked.return_progress),
        thinking_field=service.model.thinking_field,
    )
    choices = [service.answer(each, "chat", client_of(request)) for each in with_own_seeds(turn, asked.n or 1)]
    headers = note_headers(asked.effort, dialect, asked.notes, has_tools=bool(asked.tools))
    return await respond(request, choices, writer, streams=bool(asked.stream), headers=headers)
