"""A scripted `api.Engine`: the answers are given, everything else keeps the real one's contract."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from mm35local.engine import api
from mm35local.errors import ContextLengthExceeded, EngineError, EngineLoading, EngineOverloaded, Mm35Error
from mm35local.types import FinishReason, Prompt, SamplingParams, TokenLogprobs, Usage

INFO = api.EngineInfo(
    n_ctx=1024, n_ctx_train=8192, n_vocab=512, num_slots=4, model_bytes=1000, load_seconds=0.1, device="CPU"
)


@dataclass(frozen=True, slots=True)
class Script:
    """One answer: token batches as steps deliver them, then its end."""

    steps: tuple[tuple[int, ...], ...]
    num_cached_tokens: int = 0
    num_drafted: int = 0
    """All of them, and those that came true, go with the first step."""
    num_accepted: int = 0
    error: Mm35Error | None = None
    """Fails after the steps instead of finishing."""
    is_endless: bool = False
    """Repeats the steps until cancelled."""

    @property
    def ends(self) -> bool:
        """Is it over, and well, with its last step?"""
        return self.error is None and not self.is_endless


@dataclass(slots=True)
class Record:
    """What became of one request."""

    prompt: Prompt
    params: SamplingParams
    num_sent: int = 0
    client: str = ""
    is_cancelled: bool = False


@dataclass(slots=True)
class FakeEngine:
    """Answers every prompt with `answer(prompt)`; `tokenizer` plays the worker's part for strings.

    `gate` closed (cleared) holds requests before their first event, as a full queue does; `step_seconds` is the
    pause before each step's tokens.
    """

    answer: Callable[[Prompt], Script]
    tokenizer: Callable[[str], Sequence[int]]
    info: api.EngineInfo = INFO
    step_seconds: float = 0.0
    max_waiting: int = 256
    loads_at_once: bool = True
    records: list[Record] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    state: api.EngineStatus = field(default_factory=lambda: api.EngineStatus(api.EngineState.LOADING))
    num_running: int = 0
    is_closed: bool = False
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def status(self) -> api.EngineStatus:
        return replace(self.state, num_running=self.num_running)

    def load(self) -> None:
        self.state = api.EngineStatus(api.EngineState.READY, 1.0, self.info)

    def loading(self, progress: float) -> None:
        self.state = api.EngineStatus(api.EngineState.LOADING, progress)

    def fail(self, error: Mm35Error) -> None:
        self.state = api.EngineStatus(api.EngineState.FAILED, error=error)

    async def start(self) -> None:
        if self.loads_at_once:
            self.load()

    async def aclose(self) -> None:
        self.is_closed = True
        self._closing.set()
        self.gate.set()

    async def tokenize(self, parts: Sequence[str | int]) -> list[int]:
        self._check_ready()
        ids: list[int] = []
        for part in parts:
            ids.extend((part,) if isinstance(part, int) else self.tokenizer(part))
        return ids

    async def generate(
        self, prompt: Prompt, params: SamplingParams, client: str = ""
    ) -> AsyncGenerator[api.RequestEvent, None]:
        request_id = len(self.records)
        record = Record(prompt, params, client=client)
        self.records.append(record)
        if refusal := self._refusal(prompt, params):
            yield api.Failed(request_id, refusal)
            return
        self.num_running += 1
        is_over = False
        try:
            await self.gate.wait()
            async with aclosing(self._run(request_id, record, self.answer(prompt))) as events:
                async for event in events:
                    is_over = isinstance(event, api.Finished | api.Failed)
                    yield event
        finally:
            self.num_running -= 1
            record.is_cancelled = not is_over

    async def _run(self, request_id: int, record: Record, script: Script) -> AsyncGenerator[api.RequestEvent, None]:
        num_prompt_tokens = len(record.prompt.token_ids)
        yield api.Started(request_id, num_prompt_tokens, script.num_cached_tokens)
        yield api.Progress(request_id, num_prompt_tokens, num_prompt_tokens)
        reason = FinishReason.STOP
        while True:
            for number, step in enumerate(script.steps, start=1):
                await asyncio.sleep(self.step_seconds)
                room = self._room(record)
                if self._closing.is_set() or room == 0:
                    reason = FinishReason.CANCELLED if self._closing.is_set() else FinishReason.LENGTH
                    break
                tokens = step if room is None else step[:room]
                guesses = (0, 0) if record.num_sent else (script.num_drafted, script.num_accepted)
                record.num_sent += len(tokens)
                is_last = self._room(record) == 0 or (script.ends and number == len(script.steps))
                yield api.Tokens(request_id, tokens, _logprobs(tokens, record.params), *guesses, is_last)
            if reason is not FinishReason.STOP or not script.is_endless:
                break
        if script.error is not None:
            yield api.Failed(request_id, script.error)
            return
        usage = Usage(
            num_prompt_tokens, record.num_sent, script.num_cached_tokens, script.num_drafted, script.num_accepted
        )
        yield api.Finished(request_id, reason, usage)

    def _room(self, record: Record) -> int | None:
        limit = record.params.max_tokens
        return None if limit is None else max(0, limit - record.num_sent)

    def _refusal(self, prompt: Prompt, params: SamplingParams) -> Mm35Error | None:
        num_max_tokens = params.max_tokens or 0
        if self.state.state is api.EngineState.LOADING:
            return EngineLoading(self.state.progress)
        if self.state.error is not None:
            return self.state.error
        if len(prompt.token_ids) + max(1, num_max_tokens) > self.info.n_ctx:
            return ContextLengthExceeded(len(prompt.token_ids), num_max_tokens, self.info.n_ctx)
        return EngineOverloaded(self.max_waiting) if self.num_running >= self.max_waiting else None

    def _check_ready(self) -> None:
        if self.state.state is api.EngineState.LOADING:
            raise EngineLoading(self.state.progress)
        if self.state.state is api.EngineState.FAILED:
            raise self.state.error or EngineError("the engine failed")


def _logprobs(tokens: Sequence[int], params: SamplingParams) -> tuple[TokenLogprobs, ...]:
    """Each token is twice as likely as the id below it."""
    if params.num_logprobs is None:
        return ()
    ranks = range(min(params.num_logprobs, 2))
    return tuple(
        TokenLogprobs(-0.5, tuple((id_ - rank, -0.5 - rank * math.log(2)) for rank in ranks)) for id_ in tokens
    )
