"""The items of OpenAI's responses that an answer is made of, and how thinking survives the way through a client."""

from __future__ import annotations

import base64
from typing import Any

from mm35local.server.blocks import Block, Kind
from mm35local.server.logprobs import entry

_OURS = "mm35:"


def item_of(block: Block, item_id: str, status: str) -> dict[str, Any]:
    """`block` as an item; one that is in progress is still empty."""
    parts = [] if status == "in_progress" else [part_of(block)]
    match block.kind:
        case Kind.THINKING:
            return {
                "id": item_id,
                "type": "reasoning",
                "summary": [],
                "content": parts,
                "encrypted_content": sealed(block.text) if parts else None,
                "status": status,
            }
        case Kind.TEXT:
            return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": parts}
        case Kind.CALL:
            return {
                "id": item_id,
                "type": "function_call",
                "call_id": block.call_id,
                "name": block.name,
                "arguments": block.text,
                "status": status,
            }


def part_of(block: Block) -> dict[str, Any]:
    """What a block of thinking or text holds so far."""
    if block.kind is Kind.THINKING:
        return {"type": "reasoning_text", "text": block.text}
    return {
        "type": "output_text",
        "text": block.text,
        "annotations": [],
        "logprobs": [entry(token) for token in block.scores],
    }


def sealed(thinking: str) -> str:
    """`encrypted_content`: clients that keep nothing else of an item send this back. No secret, only a coat."""
    return _OURS + base64.b64encode(thinking.encode()).decode()


def unsealed(encrypted_content: str | None) -> str:
    """The thinking, or nothing where the seal is not ours."""
    if not encrypted_content or not encrypted_content.startswith(_OURS):
        return ""
    try:
        return base64.b64decode(encrypted_content.removeprefix(_OURS)).decode()
    except ValueError:
        return ""
