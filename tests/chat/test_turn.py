from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.parser import TextDelta, ThinkingDelta
from mm35local.chat.turn import Done, Prefill, Started, Turn, TurnEvent, run_turn
from mm35local.engine import api
from mm35local.errors import ContextLengthExceeded, EngineError, EngineLoading, RequestError, WorkerDied
from mm35local.types import FinishReason, SamplingParams, Usage
from tests.chat.cuts import cut
from tests.fakes.engine import FakeEngine, Script
from tests.fakes.metadata import chatml_ids, chatml_metadata, mistral_metadata

NOW = datetime(2026, 11, 23, tzinfo=UTC)
HI = Conversation((Message(Role.USER, "Hi"),), NOW)
NUM_PROMPT_TOKENS = len("user\nHi") + len("\n") + len("assistant\n") + 3


def fake(script: Script) -> FakeEngine:
    engine: FakeEngine = FakeEngine(lambda prompt: script, chatml_ids)
    _contract: api.Engine = engine
    engine.load()
    return engine


@cache
def chatml() -> Dialect:
    return load_dialect(chatml_metadata(), "x.gguf")


@cache
def mistral() -> Dialect:
    return load_dialect(mistral_metadata(), "pocket.gguf")


async def collect(events: AsyncGenerator[TurnEvent, None]) -> list[TurnEvent]:
    return [event async for event in events]


async def run(engine: FakeEngine, turn: Turn | None = None, dialect: Dialect | None = None) -> list[TurnEvent]:
    return await collect(run_turn(engine, dialect or chatml(), turn or Turn(HI, SamplingParams())))


def steps(text: str, per_step: int = 1) -> tuple[tuple[int, ...], ...]:
    ids = chatml_ids(text)
    return tuple(tuple(ids[i : i + per_step]) for i in range(0, len(ids), per_step))


async def test_events_in_order_and_the_end_last() -> None:
    events = await run(fake(Script(steps("Hé!", 2), num_cached_tokens=5)))
    assert events == [
        Started(NUM_PROMPT_TOKENS, 5),
        Prefill(NUM_PROMPT_TOKENS, NUM_PROMPT_TOKENS),
        TextDelta("H"),
        TextDelta("é!"),
        Done(FinishReason.STOP, Usage(NUM_PROMPT_TOKENS, 4, 5), "Hé!", ""),
    ]


async def test_the_prompt_is_the_dialect_s() -> None:
    engine = fake(Script(()))
    await run(engine)
    assert list(engine.records[0].prompt.token_ids) == [
        *(1, *chatml_ids("user\nHi"), 2, *chatml_ids("\n")),
        *(1, *chatml_ids("assistant\n")),
    ]


async def test_a_stop_string_cancels_and_counts_no_token_after_it() -> None:
    engine = fake(Script(steps("one END two", 4), is_endless=True))
    done = (await run(engine, Turn(HI, SamplingParams(), ("END",))))[-1]
    assert done == Done(FinishReason.STOP, Usage(NUM_PROMPT_TOKENS, len("one END"), 0), "one ", "")
    assert engine.records[0].is_cancelled


async def test_text_held_back_for_a_stop_string_comes_in_the_end() -> None:
    done = (await run(fake(Script(steps("one EN"))), Turn(HI, SamplingParams(), ("END",))))[-1]
    assert isinstance(done, Done)
    assert done.text == "one EN"


async def test_max_tokens_end_with_length() -> None:
    done = (await run(fake(Script(steps("abcdef"))), Turn(HI, SamplingParams(max_tokens=3))))[-1]
    assert done == Done(FinishReason.LENGTH, Usage(NUM_PROMPT_TOKENS, 3, 0), "abc", "")


async def test_closing_early_cancels_the_request() -> None:
    engine = fake(Script(steps("abc"), is_endless=True))
    async with aclosing(run_turn(engine, chatml(), Turn(HI, SamplingParams()))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert engine.records[0].is_cancelled
    assert engine.num_running == 0


async def test_an_engine_that_closes_cuts_the_answer_short() -> None:
    engine = fake(Script(steps("abc"), is_endless=True))
    with pytest.raises(EngineError, match="cut short"):
        async for event in run_turn(engine, chatml(), Turn(HI, SamplingParams())):
            if isinstance(event, TextDelta):
                await engine.aclose()


async def test_errors_of_the_engine_come_through() -> None:
    with pytest.raises(WorkerDied):
        await run(fake(Script(steps("abc"), error=WorkerDied(-9))))
    engine = fake(Script(()))
    engine.loading(0.5)
    with pytest.raises(EngineLoading):
        await run(engine)


async def test_too_long_a_prompt_never_reaches_the_engine() -> None:
    engine = fake(Script(()))
    with pytest.raises(ContextLengthExceeded) as caught:
        await run(engine, Turn(HI, SamplingParams(max_tokens=1024)))
    assert (caught.value.num_prompt_tokens, caught.value.num_max_tokens) == (NUM_PROMPT_TOKENS, 1024)
    assert engine.records == []


async def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RequestError, match="empty prompt"):
        await run(fake(Script(())), dialect=load_dialect(chatml_metadata(""), "x.gguf"))


async def test_a_call_that_no_tool_was_offered_for_is_text() -> None:
    ids = [9, *(1000 + byte for byte in b"f"), 32, *(1000 + byte for byte in b"{}")]
    done = (await run(fake(Script((tuple(ids),))), dialect=mistral()))[-1]
    assert isinstance(done, Done)
    assert done.text == "f{}"


ANSWERS = st.lists(
    st.sampled_from([34, 35, 9, 32, 2]) | st.integers(1000, 1000 + 255) | st.integers(1256, 16_000), max_size=20
)
CASES = ANSWERS.flatmap(lambda ids: st.tuples(st.just(ids), cut(ids), st.sampled_from([(), ("a",), ("in", "e ")])))


@given(CASES)
async def test_a_stream_concatenates_to_the_whole_however_it_is_cut(
    case: tuple[list[int], list[list[int]], tuple[str, ...]],
) -> None:
    ids, pieces, stops = case
    turn = Turn(HI, SamplingParams(), stops)
    streamed = await run(fake(Script(tuple(map(tuple, pieces)))), turn, mistral())
    whole = await run(fake(Script((tuple(ids),))), turn, mistral())
    done = streamed[-1]
    assert done == whole[-1]
    assert isinstance(done, Done)
    assert "".join(event.text for event in streamed if isinstance(event, TextDelta)) == done.text
    assert "".join(event.text for event in streamed if isinstance(event, ThinkingDelta)) == done.thinking
