"""An answer in the words of OpenAI's responses: numbered events, or one response object."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mm35local.chat.scores import ScoredToken
from mm35local.chat.turn import Done, Started, TurnEvent
from mm35local.server.blocks import Block, BlockEvent, Blocks, Closed, Grown, Kind, Opened
from mm35local.server.logprobs import entry
from mm35local.server.problems import Problem
from mm35local.server.responses_items import item_of, part_of
from mm35local.server.sse import COMMENT, Opening, frame
from mm35local.types import FinishReason

# kind: the names of its events (of a piece, of the whole), and of the whole's field
_EVENTS = {
    Kind.THINKING: ("response.reasoning_text", "text"),
    Kind.TEXT: ("response.output_text", "text"),
    Kind.CALL: ("response.function_call_arguments", "arguments"),
}


class ResponsesWriter:
    """Implements `answers.Writer` for one choice. `echo` are the request's fields that the response repeats."""

    ping = COMMENT

    def __init__(self, model: str, echo: Mapping[str, Any]) -> None:
        self._id = f"resp_{secrets.token_hex(16)}"
        self._head = {"id": self._id, "object": "response", "created_at": int(time.time()), "model": model, **echo}
        self._blocks = Blocks()
        self._done: Done | None = None
        self._num_events = 0

    def take(self, index: int, event: TurnEvent) -> Iterator[bytes]:
        if isinstance(event, Started):
            yield Opening(self._frame("response.created", response=self._response("in_progress")))
            yield Opening(self._frame("response.in_progress", response=self._response("in_progress")))
        if isinstance(event, Done):
            self._done = event
        for change in self._blocks.take(event):
            yield from self._frames(change)
        if isinstance(event, Done):
            yield self._frame(f"response.{self._status}", response=self.whole())

    def whole(self) -> dict[str, Any]:
        return self._response(self._status)

    def end(self) -> bytes:
        return b""

    def failed(self, problem: Problem) -> bytes:
        code = problem.code or problem.body["error"]["type"]
        error = {"code": code, "message": problem.message}
        told = self._frame("error", **error, param=problem.param)
        return told + self._frame("response.failed", response={**self._response("failed"), "error": error})

    @property
    def _status(self) -> str:
        assert self._done is not None, "the turn has ended"
        return "incomplete" if self._done.finish_reason is FinishReason.LENGTH else "completed"

    def _frame(self, kind: str, **payload: Any) -> bytes:
        number, self._num_events = self._num_events, self._num_events + 1
        return frame({"type": kind, "sequence_number": number, **payload}, kind)

    def _frames(self, change: BlockEvent) -> Iterator[bytes]:
        block = change.block
        where = {"item_id": self._item_id(block), "output_index": block.index}
        match change:
            case Opened():
                item = item_of(block, self._item_id(block), "in_progress")
                yield self._frame("response.output_item.added", output_index=block.index, item=item)
                if block.kind is not Kind.CALL:
                    yield self._frame("response.content_part.added", **where, content_index=0, part=part_of(block))
            case Grown():
                yield self._frame(
                    f"{_EVENTS[block.kind][0]}.delta", **where, **_position(block, change.scores), delta=change.piece
                )
            case Closed():
                yield from self._closing(block, where)

    def _closing(self, block: Block, where: dict[str, Any]) -> Iterator[bytes]:
        name, field = _EVENTS[block.kind]
        more = {"name": block.name} if block.kind is Kind.CALL else {}
        yield self._frame(f"{name}.done", **where, **_position(block, block.scores), **more, **{field: block.text})
        if block.kind is not Kind.CALL:
            yield self._frame("response.content_part.done", **where, content_index=0, part=part_of(block))
        yield self._frame("response.output_item.done", output_index=block.index, item=self._item(block))

    def _item(self, block: Block) -> dict[str, Any]:
        """A closed one: the last of an answer that was cut short is incomplete as the answer is."""
        is_last = self._done is not None and block is self._blocks.all[-1]
        return item_of(block, self._item_id(block), self._status if is_last else "completed")

    def _item_id(self, block: Block) -> str:
        prefix = {Kind.THINKING: "rs", Kind.TEXT: "msg", Kind.CALL: "fc"}[block.kind]
        return f"{prefix}_{self._id.removeprefix('resp_')}{block.index}"

    def _response(self, status: str) -> dict[str, Any]:
        is_over = self._done is not None
        blocks = self._blocks.all if is_over else []
        return {
            **self._head,
            "status": status,
            "output": [self._item(block) for block in blocks],
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "usage": _usage(self._done) if self._done else None,
        }


def _position(block: Block, scores: Sequence[ScoredToken]) -> dict[str, Any]:
    match block.kind:
        case Kind.THINKING:
            return {"content_index": 0}
        case Kind.TEXT:
            return {"content_index": 0, "logprobs": [entry(token) for token in scores]}
        case Kind.CALL:
            return {}


def _usage(done: Done) -> dict[str, Any]:
    usage = done.usage
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.num_cached_tokens},
        "output_tokens": usage.num_completion_tokens,
        "output_tokens_details": {"reasoning_tokens": done.num_thinking_tokens},
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
    }
