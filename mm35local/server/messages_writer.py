"""An answer in the words of Anthropic's messages: a row of events, or one message."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from mm35local.chat.turn import Done, Started, TurnEvent
from mm35local.chat.unicode import legal_json
from mm35local.server.blocks import Block, BlockEvent, Blocks, Closed, Grown, Kind, Opened
from mm35local.server.problems import Problem
from mm35local.server.sse import Opening, frame
from mm35local.types import FinishReason, Usage

_SIGNATURE = "mm35local"  # clients drop thinking that is not signed; nobody checks it
_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
}


class MessagesWriter:
    """Implements `answers.Writer` for one choice."""

    ping = frame({"type": "ping"}, "ping")

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = f"msg_{secrets.token_hex(12)}"
        self._blocks = Blocks()
        self._done: Done | None = None

    def take(self, index: int, event: TurnEvent) -> Iterator[bytes]:
        if isinstance(event, Started):
            usage = Usage(event.num_prompt_tokens, 0, event.num_cached_tokens)
            start = {"type": "message_start", "message": self._message([], _ending(None), _usage(usage))}
            yield Opening(_frame(start) + self.ping)
        for change in self._blocks.take(event):
            yield from _frames(change)
        if isinstance(event, Done):
            self._done = event
            yield _frame({"type": "message_delta", "delta": _ending(event), "usage": _usage(event.usage)})

    def whole(self) -> dict[str, Any]:
        assert self._done is not None, "the turn has ended"
        content = [_content(block) for block in self._blocks.all]
        return self._message(content, _ending(self._done), _usage(self._done.usage))

    def end(self) -> bytes:
        return _frame({"type": "message_stop"})

    def failed(self, problem: Problem) -> bytes:
        return _frame(problem.anthropic_body)

    def _message(self, content: list[Any], ending: dict[str, str | None], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **ending,
            "usage": usage,
        }


def _ending(done: Done | None) -> dict[str, str | None]:
    """Why it ended; all null of one that has not."""
    if done is None:
        return {"stop_reason": None, "stop_sequence": None}
    reason = _STOP_REASONS[done.finish_reason] if done.stop is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": done.stop}


def _frame(payload: dict[str, Any]) -> bytes:
    return frame(payload, payload["type"])


def _frames(change: BlockEvent) -> Iterator[bytes]:
    block = change.block
    match change:
        case Opened():
            empty = {**_content(block), **({"signature": ""} if block.kind is Kind.THINKING else {})}
            yield _frame({"type": "content_block_start", "index": block.index, "content_block": empty})
        case Grown():
            yield _delta(block, _growth(block, change.piece))
        case Closed():
            if block.kind is Kind.THINKING:
                yield _delta(block, {"type": "signature_delta", "signature": _SIGNATURE})
            yield _frame({"type": "content_block_stop", "index": block.index})


def _delta(block: Block, delta: dict[str, str]) -> bytes:
    return _frame({"type": "content_block_delta", "index": block.index, "delta": delta})


def _growth(block: Block, piece: str) -> dict[str, str]:
    match block.kind:
        case Kind.THINKING:
            return {"type": "thinking_delta", "thinking": piece}
        case Kind.TEXT:
            return {"type": "text_delta", "text": piece}
        case Kind.CALL:
            return {"type": "input_json_delta", "partial_json": piece}


def _content(block: Block) -> dict[str, Any]:
    match block.kind:
        case Kind.THINKING:
            return {"type": "thinking", "thinking": block.text, "signature": _SIGNATURE}
        case Kind.TEXT:
            return {"type": "text", "text": block.text}
        case Kind.CALL:
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": _input(block.text)}


def _input(arguments: str) -> dict[str, Any]:
    """An object even where the answer was cut short in the middle of it: nothing that came is lost."""
    try:
        found = json.loads(legal_json(arguments or "{}"))
        json.dumps([[[[found]]]], allow_nan=False)  # deeper than in the body, which knows no infinity either
    except (ValueError, RecursionError):
        return {"unfinished": arguments}
    return found if isinstance(found, dict) else {"value": found}


def _usage(usage: Usage) -> dict[str, int]:
    """Anthropic counts the cached part of a prompt apart."""
    return {
        "input_tokens": usage.num_prompt_tokens - usage.num_cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached_tokens,
        "output_tokens": usage.num_completion_tokens,
    }
