"""Text to token ids and back, and a conversation as the model will read it: for programs that count or look."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import RequestError
from mm35local.server.chat_request import ChatRequest
from mm35local.server.parsing import Items, parse
from mm35local.server.security import read_body
from mm35local.server.service import Service

router = APIRouter()
_MAX_IDS = 1 << 21
_IMAGE = "[IMG]"
"""Told for each row of an image, whose ids mean nothing to others."""


class TokenizeRequest(BaseModel):
    content: str | Items[str | int] = ""
    prompt: str | None = None
    """vLLM's name of `content`."""
    add_special: bool = False
    add_special_tokens: bool = False
    with_pieces: bool = False


class DetokenizeRequest(BaseModel):
    tokens: Annotated[Items[int], Field(max_length=_MAX_IDS)]


@router.post("/tokenize", response_model=None)
async def tokenize(request: Request) -> JSONResponse:
    """`content` is text and stays text: no spelling of a control token becomes one. Ids in it pass as they are."""
    service: Service = request.app.state.service
    asked = parse(TokenizeRequest, await read_body(request))
    vocabulary = service.dialect().vocabulary
    content = asked.prompt if asked.prompt is not None else asked.content
    parts: list[str | int] = [content] if isinstance(content, str) else list(content)
    if (asked.add_special or asked.add_special_tokens) and "bos" in vocabulary.named:
        parts.insert(0, vocabulary.named["bos"])
    ids = await service.engine.tokenize([part for part in parts if part != ""])
    tokens = [_piece(vocabulary, id_) for id_ in ids] if asked.with_pieces else ids
    return JSONResponse({"tokens": tokens, "count": len(ids), "max_model_len": service.info.n_ctx})


@router.post("/detokenize", response_model=None)
async def detokenize(request: Request) -> JSONResponse:
    """Control tokens appear as they are spelt. Raises RequestError for an id outside the vocabulary."""
    service: Service = request.app.state.service
    asked = parse(DetokenizeRequest, await read_body(request))
    text = text_of(service.dialect().vocabulary, asked.tokens)
    return JSONResponse({"content": text, "prompt": text})


@router.post("/apply-template", response_model=None)
async def apply_template(request: Request) -> JSONResponse:
    """The prompt of a chat request, as ids and as text with its control tokens spelt out."""
    service: Service = request.app.state.service
    asked = parse(ChatRequest, await read_body(request))
    dialect = service.dialect()
    await service.images.read(asked.contents)
    turn = asked.turn(service.sampling_for(asked), datetime.now().astimezone())
    parts = await asyncio.to_thread(dialect.render, turn.conversation)
    spelt = dialect.vocabulary.controls.get(_IMAGE, 0)
    ids = [id_ if id_ >= 0 else spelt for id_ in await service.engine.tokenize(parts)]
    return JSONResponse({"prompt": text_of(dialect.vocabulary, ids), "tokens": ids})


def text_of(vocabulary: Vocabulary, ids: list[int]) -> str:
    return b"".join(_bytes(vocabulary, id_) for id_ in ids).decode("utf-8", "replace")


def _bytes(vocabulary: Vocabulary, id_: int) -> bytes:
    if not 0 <= id_ < len(vocabulary.tokens):
        raise RequestError(f"token id {id_} is not in the vocabulary of {len(vocabulary.tokens)}", "tokens")
    return vocabulary.tokens[id_].encode() if id_ in vocabulary.control_ids else vocabulary.token_bytes(id_)


def _piece(vocabulary: Vocabulary, id_: int) -> dict[str, Any]:
    """llama.cpp's shape: a string where the bytes are text, else the bytes as numbers."""
    piece = _bytes(vocabulary, id_)
    try:
        return {"id": id_, "piece": piece.decode()}
    except UnicodeDecodeError:
        return {"id": id_, "piece": list(piece)}
