"""Cases become token ids: the prompt by mistral-common itself, the reply by the wire format of the release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from numpy.typing import NDArray

from tests.pocket.training.case import Call, Case, Reply

EOS, INST_END, RESULTS, RESULTS_END, CALLS, PAD, ARGS, THINK, THINK_END = 2, 4, 7, 8, 9, 11, 32, 34, 35


@dataclass(frozen=True, slots=True)
class Sample:
    """One dialogue as ids. `is_target[i]` says that id i was written by the assistant."""

    family: str
    ids: tuple[int, ...]
    is_target: tuple[bool, ...]
    num_prompt: int
    images: tuple[NDArray[np.float32], ...]


class Encoder:
    """mistral-common with the miniature's own tekken.json."""

    def __init__(self, tekken: Path) -> None:
        self._mistral = MistralTokenizer.from_file(str(tekken))
        self.tokenizer = self._mistral.instruct_tokenizer.tokenizer

    def sample(self, case: Case) -> Sample:
        request = ChatCompletionRequest.from_openai(
            messages=list(case.messages), tools=list(case.tools) or None, reasoning_effort=case.effort
        )
        prompt = self._mistral.encode_chat_completion(request)
        ids = (*prompt.tokens, *self.reply_ids(case.expected))
        images = tuple(np.asarray(image, np.float32) for image in prompt.images)
        return Sample(case.family, ids, assistant_mask(ids), len(prompt.tokens), images)

    def reply_ids(self, reply: Reply) -> tuple[int, ...]:
        ids: list[int] = []
        if reply.thinking:
            ids += [THINK, *self.text_ids(reply.thinking), THINK_END]
        ids += self.text_ids(reply.text)
        for call in reply.calls:
            ids += [CALLS, *self.text_ids(call.name), ARGS, *self.text_ids(call.arguments_json)]
        return (*ids, EOS)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, bos=False, eos=False)

    def reply(self, ids: list[int]) -> Reply:
        """The inverse of `reply_ids`, for what a model wrote; a malformed call becomes text, which then fails."""
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        thinking: list[int] = []
        if ids and ids[0] == THINK and THINK_END in ids:
            end = ids.index(THINK_END)
            thinking, ids = ids[1:end], ids[end + 1 :]
        text, *calls = _split(ids, CALLS)
        try:
            return Reply(self._text(text), self._text(thinking), tuple(self._call(call) for call in calls))
        except ValueError:
            return Reply(f"malformed: {self._text(ids)}")

    def _call(self, ids: list[int]) -> Call:
        name, arguments = _split(ids, ARGS)
        return Call.parse(self._text(name), self._text(arguments))

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))


def assistant_mask(ids: tuple[int, ...]) -> tuple[bool, ...]:
    """True from behind [/INST] or the last [/TOOL_RESULTS] up to and including </s>: no user text can forge these."""
    mask, is_assistant = [], False
    for token in ids:
        if token == RESULTS:
            is_assistant = False
        mask.append(is_assistant)
        if token in (INST_END, RESULTS_END):
            is_assistant = True
        elif token == EOS:
            is_assistant = False
    return tuple(mask)


def _split(ids: list[int], separator: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
