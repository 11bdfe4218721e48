"""An answer in the words of OpenAI's chat completions: chunks, or one completion."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mm35local.chat.parser import TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.tools import ToolCall
from mm35local.chat.turn import Done, Prefill, Started, TurnEvent
from mm35local.server.logprobs import PendingScores, chat_logprobs
from mm35local.server.problems import Problem
from mm35local.server.sse import COMMENT, DONE, Opening, frame
from mm35local.server.stopwatch import Stopwatch
from mm35local.types import Usage


class ChatWriter:
    """Implements `answers.Writer` for `num_choices` choices."""

    ping = COMMENT

    def __init__(
        self,
        model: str,
        *,
        num_choices: int = 1,
        wants_usage: bool = False,
        wants_progress: bool = False,
        thinking_field: str = "reasoning_content",
    ) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._wants_usage = wants_usage
        self._wants_progress = wants_progress
        self._thinking_field = thinking_field
        self._watches = [Stopwatch() for _ in range(num_choices)]
        self._scores = [PendingScores() for _ in range(num_choices)]
        self._dones: dict[int, Done] = {}

    def take(self, index: int, event: TurnEvent) -> Iterator[bytes]:
        self._watches[index].feed(event)
        self._scores[index].feed(event)
        match event:
            case Started():
                yield Opening(self._chunk(index, {"role": "assistant", "content": ""}))
                yield from self._progress(index)
            case Prefill():
                yield from self._progress(index)
            case ThinkingDelta():
                yield self._chunk(index, {self._thinking_field: self._thought(event.text)})
            case TextDelta():
                yield self._chunk(index, {"content": event.text})
            case ToolCallDelta():
                yield self._chunk(index, {"tool_calls": [_call_delta(event)]})
            case Done():
                self._dones[index] = event
                timings = self._watches[index].timings()
                yield self._chunk(index, {}, event.finish_reason.value, timings=timings, **_warnings([event]))

    def whole(self) -> dict[str, Any]:
        choices = [self._choice(index, self._dones[index]) for index in range(len(self._watches))]
        timings = self._watches[0].timings()
        return self._payload(
            "chat.completion", choices, usage=self._usage(), timings=timings, **_warnings(self._dones.values())
        )

    def end(self) -> bytes:
        if not self._wants_usage:
            return DONE
        return frame(self._payload("chat.completion.chunk", [], usage=self._usage())) + DONE

    def failed(self, problem: Problem) -> bytes:
        return frame(problem.body, "error") + DONE

    def _progress(self, index: int) -> Iterator[bytes]:
        if self._wants_progress:
            yield self._chunk(index, {}, prompt_progress=self._watches[index].progress())

    def _chunk(self, index: int, delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        tokens = self._scores[index].take() if "content" in delta or finish_reason else []
        choice = {"index": index, "delta": delta, "logprobs": chat_logprobs(tokens), "finish_reason": finish_reason}
        return frame(self._payload("chat.completion.chunk", [choice], **more))

    def _choice(self, index: int, done: Done) -> dict[str, Any]:
        text = None if done.tool_calls and not done.text else done.text
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if done.thinking and self._is_chunked:
            said = [{"type": "text", "text": text}] if text else []
            message["content"] = [*_thinking_chunks(done.thinking), *said]
        elif done.thinking:
            message[self._thinking_field] = done.thinking
        if done.tool_calls:
            message["tool_calls"] = [_call(call) for call in done.tool_calls]
        logprobs = chat_logprobs(self._scores[index].all)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": done.finish_reason.value}

    @property
    def _is_chunked(self) -> bool:
        return self._thinking_field == "content"

    def _thought(self, text: str) -> str | list[dict[str, Any]]:
        return _thinking_chunks(text) if self._is_chunked else text

    def _payload(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._head, "object": kind, "choices": choices, **more}

    def _usage(self) -> dict[str, Any]:
        return openai_usage(self._dones, len(self._watches))


def _thinking_chunks(text: str) -> list[dict[str, Any]]:
    """As Mistral's own API has it, where `content` is a list."""
    return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]


def _warnings(dones: Iterable[Done]) -> dict[str, list[str]]:
    """An extension; absent where there is nothing to warn of."""
    warnings = [warning for done in dones for warning in done.warnings]
    return {"warnings": warnings} if warnings else {}


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    """Only a call's first delta has its id and type: clients append what comes later, the name's nothing too.

    Mistral's client wants a string for the name in each of them.
    """
    function = {"name": delta.name, "arguments": delta.arguments}
    if not delta.name:
        return {"index": delta.index, "function": function}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def openai_usage(dones: Mapping[int, Done], num_choices: int) -> dict[str, Any]:
    """Of all choices together; the prompt that `num_choices` of them share counts once."""
    in_order = [done for _, done in sorted(dones.items())]
    prompts = [done.usage for done in in_order[::num_choices]]
    num_prompt_tokens = sum(usage.num_prompt_tokens for usage in prompts)
    num_completion_tokens = sum(done.usage.num_completion_tokens for done in in_order)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.num_cached_tokens for usage in prompts)},
        "completion_tokens_details": {
            "reasoning_tokens": sum(done.num_thinking_tokens for done in in_order),
            **_predictions([done.usage for done in in_order]),
        },
    }


def _predictions(usages: Sequence[Usage]) -> dict[str, int]:
    """What speculation guessed, in OpenAI's words; nothing where nothing was guessed."""
    num_drafted = sum(usage.num_drafted for usage in usages)
    num_accepted = sum(usage.num_accepted for usage in usages)
    if not num_drafted:
        return {}
    return {"accepted_prediction_tokens": num_accepted, "rejected_prediction_tokens": num_drafted - num_accepted}
