"""How fast a loaded engine is: prefill and decode at a depth, and several streams at once. Speaks ids only."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from mm35local.engine.api import Engine, EngineState, Failed, Finished, Started, Tokens
from mm35local.types import Prompt, SamplingParams

_FIRST_ID = 16
"""Below it vocabularies keep their control tokens."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens/s with `depth` tokens in the cells before; of all `num_streams` together where they are several."""

    depth: int
    num_streams: int
    prefill: float
    decode: float


async def loaded(engine: Engine) -> None:
    """Start it and wait. Raises what kept it from loading."""
    await engine.start()
    while engine.status.state is EngineState.LOADING:
        await asyncio.sleep(_POLL_SECONDS)
    if engine.status.error is not None:
        raise engine.status.error


async def measure_depth(engine: Engine, depth: int, num_prompt: int, num_decode: int) -> Rate:
    """One stream: `num_prompt` tokens behind `depth` others, then `num_decode` more. Raises what the engine says."""
    prompt = _random_ids(engine, depth + num_prompt, seed=1)
    if depth:
        await _run(engine, prompt[:depth], 1)
    one = await _run(engine, prompt, num_decode)
    return Rate(depth, 1, one.num_computed / one.seconds_to_first, _rate([one]))


async def measure_streams(engine: Engine, num_streams: int, num_prompt: int, num_decode: int) -> Rate:
    """Many at once, each with a prompt of its own; decode counts while all of them run."""
    prompts = [_random_ids(engine, num_prompt, seed=2 + index) for index in range(num_streams)]
    all_of_them = await asyncio.gather(*(_run(engine, prompt, num_decode) for prompt in prompts))
    seconds = max(one.times[0] for one in all_of_them) - min(one.started for one in all_of_them)
    return Rate(0, num_streams, num_streams * num_prompt / seconds, _rate(all_of_them))


@dataclass(frozen=True, slots=True)
class _Stream:
    started: float
    num_computed: int
    """Tokens of the prompt that were not in the cells already."""
    times: tuple[float, ...]
    """When each token of the answer came."""

    @property
    def seconds_to_first(self) -> float:
        return self.times[0] - self.started


def _rate(streams: list[_Stream]) -> float:
    start, end = max(one.times[0] for one in streams), min(one.times[-1] for one in streams)
    num_tokens = sum(start < moment <= end for one in streams for moment in one.times)
    return num_tokens / (end - start) if end > start else 0.0


async def _run(engine: Engine, prompt: tuple[int, ...], num_tokens: int) -> _Stream:
    params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
    started, num_cached, times = time.perf_counter(), 0, list[float]()
    async for event in engine.generate(Prompt(prompt), params):
        match event:
            case Started():
                num_cached = event.num_cached_tokens
            case Tokens():
                times += [time.perf_counter()] * len(event.token_ids)
            case Failed(error=error):
                raise error
            case Finished():
                break
    return _Stream(started, len(prompt) - num_cached, tuple(times))


def _random_ids(engine: Engine, count: int, seed: int) -> tuple[int, ...]:
    info = engine.status.info
    assert info is not None, "only a loaded engine is measured"
    draw = random.Random(seed)
    return tuple(draw.randrange(min(_FIRST_ID, info.n_vocab - 1), info.n_vocab) for _ in range(count))
