"""POST /v1/responses: OpenAI's newer wire around a turn. Nothing is stored."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from mm35local.server.answers import respond
from mm35local.server.clients import client_of
from mm35local.server.notes import note_headers
from mm35local.server.parsing import parse
from mm35local.server.responses_request import ResponsesRequest
from mm35local.server.responses_writer import ResponsesWriter
from mm35local.server.security import read_body
from mm35local.server.service import Service

router = APIRouter()


@router.post("/v1/responses", response_model=None)
@router.post("/responses", response_model=None, include_in_schema=False)
async def responses(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = parse(ResponsesRequest, await read_body(request))
    dialect = service.dialect()
    await service.images.read(asked.contents)
    turn, notes = asked.turn(service.sampling_for(asked), datetime.now().astimezone())
    writer = ResponsesWriter(service.model.id, asked.echo)
    headers = note_headers(asked.effort, dialect, notes, has_tools=bool(asked.tools))
    events = service.answer(turn, "responses", client_of(request))
    return await respond(request, [events], writer, streams=bool(asked.stream), headers=headers)
