from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.call_ids import is_legal
from mm35local.chat.deltas import TextDelta, ThinkingDelta, ToolCallDelta
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Message, Role
from mm35local.chat.notes import Change, Note
from mm35local.chat.tools import Tool, ToolCall, ToolChoice, ToolMode
from mm35local.chat.turn import Decoded, Done, Ends, Prefill, Started, Turn, TurnEvent, run_turn
from mm35local.engine import api
from mm35local.errors import ContextLengthExceeded, EngineClosing, EngineLoading, RequestError, WorkerDied
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
        Decoded(2),
        TextDelta("H"),
        Decoded(2),
        Ends(),
        TextDelta("é!"),
        Done(FinishReason.STOP, Usage(NUM_PROMPT_TOKENS, 4, 5), "Hé!", ""),
    ]


async def test_the_end_is_told_before_the_last_words_but_only_if_there_are_any() -> None:
    stopped = await run(fake(Script(steps("one twoSTOP!", 6))), Turn(HI, SamplingParams(), stops=("STOP",)))
    assert stopped[-5:-1] == [TextDelta("one tw"), Decoded(6), Ends(), TextDelta("o")]
    full = await run(fake(Script(steps("abcdef", 2))), Turn(HI, SamplingParams(max_tokens=4)))
    assert full[-3:-1] == [Ends(), TextDelta("cd")]
    held = await run(fake(Script((*steps("ab STO", 6), ()))), Turn(HI, SamplingParams(), stops=("STOP",)))
    assert held[-5:-1] == [TextDelta("ab "), Decoded(0), Ends(), TextDelta("STO")]
    silent = await run(fake(Script((*steps("ab", 2), ()))))
    assert silent[-3:-1] == [TextDelta("ab"), Decoded(0)], "there are no words behind it"
    events = run_turn(fake(Script(steps("ab", 2), error=WorkerDied(-9))), chatml(), Turn(HI, SamplingParams()))
    async with aclosing(events):
        assert [await anext(events) for _ in range(4)][-1] == TextDelta("ab"), "for all that is known it goes on"


async def test_each_step_tells_its_tokens_also_those_without_text() -> None:
    events = await run(fake(Script(((34,), (1000, 35), (1001,)), num_drafted=4, num_accepted=3)), dialect=mistral())
    decoded = [event for event in events if isinstance(event, Decoded)]
    assert decoded == [Decoded(1, 4, 3), Decoded(2), Decoded(1)]


async def test_a_start_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def generate(*_: object) -> AsyncGenerator[api.RequestEvent, None]:
        yield api.Started(1, NUM_PROMPT_TOKENS, 0, at=12.5)
        yield api.Finished(1, FinishReason.STOP, Usage(NUM_PROMPT_TOKENS, 0, 0))

    engine = fake(Script(steps("x")))
    monkeypatch.setattr(FakeEngine, "generate", generate)
    started, *_ = await run(engine)
    assert isinstance(started, Started)
    assert started.at == 12.5


@pytest.mark.parametrize("dialect", [chatml, mistral])
async def test_what_cannot_fit_however_it_is_cut_is_not_tokenized(
    dialect: Callable[[], Dialect], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("tokenized")

    monkeypatch.setattr(FakeEngine, "tokenize", never)
    monkeypatch.setattr(type(dialect()), "render", never)
    messages = (Message(Role.USER, "é" * (1 << 19) + "x"), *HI.messages)
    with pytest.raises(ContextLengthExceeded, match="the prompt has at least") as caught:
        await run(fake(Script(steps("x"))), Turn(replace(HI, messages=messages), SamplingParams()), dialect())
    assert caught.value.num_prompt_tokens > caught.value.n_ctx


async def test_the_prompt_is_the_dialect_s() -> None:
    engine = fake(Script(()))
    await run(engine)
    assert list(engine.records[0].prompt.token_ids) == [
        *(1, *chatml_ids("user\nHi"), 2, *chatml_ids("\n")),
        *(1, *chatml_ids("assistant\n")),
    ]


LONG_ARGUMENTS = tuple(
    message
    for n in range(4)
    for message in (
        Message(Role.ASSISTANT, tool_calls=(ToolCall(f"call{n:05}", "note", json.dumps({"text": "x" * 10_000})),)),
        Message(Role.TOOL, "done", tool_call_id=f"call{n:05}"),
    )
)


@pytest.mark.parametrize(
    ("messages", "is_beside"),
    [
        (HI.messages, False),
        ((Message(Role.USER, "x" * 10_000),), False),
        ((Message(Role.USER, "x" * 40_000),), True),
        ((Message(Role.USER, "Hi"), *LONG_ARGUMENTS), True),
        ((Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Ho")) * 20 + HI.messages, False),
        ((Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Ho")) * 40 + HI.messages, True),
    ],
)
async def test_long_histories_leave_the_loop_to_others(
    messages: tuple[Message, ...], is_beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, threads = mistral(), list[bool]()
    render = type(dialect).render

    def watched(self: Dialect, conversation: Conversation) -> tuple[str | int, ...]:
        threads.append(threading.current_thread() is not threading.main_thread())
        return render(self, conversation)

    monkeypatch.setattr(type(dialect), "render", watched)
    with suppress(ContextLengthExceeded):
        await run(fake(Script(steps("x"))), Turn(replace(HI, messages=messages), SamplingParams()), dialect)
    assert threads == [is_beside]


async def test_a_stop_string_cancels_and_counts_no_token_after_it() -> None:
    engine = fake(Script(steps("one END two", 4), num_drafted=4, num_accepted=3, is_endless=True))
    done = (await run(engine, Turn(HI, SamplingParams(), ("END",))))[-1]
    assert done == Done(FinishReason.STOP, Usage(NUM_PROMPT_TOKENS, len("one END"), 0, 4, 3), "one ", "", stop="END")
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
    with pytest.raises(EngineClosing, match="cut short"):
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


def bytes_of(text: str) -> list[int]:
    return [1000 + byte for byte in text.encode()]


def call(name: str, arguments: str) -> list[int]:
    return [9, *bytes_of(name), 32, *bytes_of(arguments)]


OFFERED = replace(HI, tools=(Tool("f"), Tool("g")))


async def test_a_call_that_no_tool_was_offered_for_is_text() -> None:
    for conversation in (HI, replace(OFFERED, tool_choice=ToolChoice(ToolMode.NONE))):
        turn = Turn(conversation, SamplingParams())
        done = (await run(fake(Script((tuple(call("f", "{}")),))), turn, mistral()))[-1]
        assert isinstance(done, Done)
        assert (done.text, done.tool_calls, done.finish_reason) == ("f{}", (), FinishReason.STOP)
        assert "may call nothing" in done.warnings[0]


async def test_calls_after_thinking_and_text() -> None:
    ids = [34, *bytes_of("hm"), 35, *bytes_of("See:"), *call("f", '{"a": 1}'), *call("h", "{}")]
    turn = Turn(OFFERED, SamplingParams(), stops=("e:!",))
    events = await run(fake(Script(tuple((id_,) for id_ in ids))), turn, mistral())
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.thinking, done.text, done.finish_reason) == ("hm", "See:", FinishReason.TOOL_CALLS)
    assert [(c.name, c.arguments) for c in done.tool_calls] == [("f", '{"a": 1}'), ("h", "{}")]
    assert done.num_thinking_tokens == 4
    assert done.warnings == ("the model called 'h', which was not offered",)
    deltas = [event for event in events if isinstance(event, TextDelta | ToolCallDelta)]
    first = deltas.index(ToolCallDelta(0, "f", id=done.tool_calls[0].id))
    assert all(isinstance(delta, TextDelta) for delta in deltas[:first])
    assert "".join(d.arguments for d in deltas if isinstance(d, ToolCallDelta) and d.index == 0) == '{"a": 1}'


async def test_call_ids_are_nine_letters_and_digits_and_depend_on_the_prompt() -> None:
    async def id_after(text: str) -> str:
        turn = Turn(replace(OFFERED, messages=(Message(Role.USER, text),)), SamplingParams())
        done = (await run(fake(Script((tuple(call("f", "{}")),))), turn, mistral()))[-1]
        assert isinstance(done, Done)
        return done.tool_calls[0].id

    first, second = await id_after("a"), await id_after("b")
    assert is_legal(first)
    assert first == await id_after("a")
    assert first != second


async def test_a_call_cut_by_max_tokens_ends_with_length() -> None:
    turn = Turn(OFFERED, SamplingParams(max_tokens=6))
    steps = tuple((id_,) for id_ in call("f", '{"a": 1}'))
    done = (await run(fake(Script(steps)), turn, mistral()))[-1]
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.LENGTH
    assert done.tool_calls[0].arguments == '{"a'


async def test_what_was_changed_in_the_history_is_told() -> None:
    messages = (Message(Role.USER, "a"), Message(Role.USER, "b"))
    events = await run(fake(Script(())), Turn(replace(HI, messages=messages), SamplingParams()))
    assert isinstance(events[0], Started)
    assert events[0].notes == (Note(Change.MERGED, 1),)


ANSWERS = st.lists(
    st.sampled_from([34, 35, 9, 32, 2])
    | st.integers(1000, 1000 + 255)
    | st.integers(1256, 16_000)
    | st.sampled_from(bytes_of('{}"')),
    max_size=20,
)
CASES = ANSWERS.flatmap(lambda ids: st.tuples(st.just(ids), cut(ids), st.sampled_from([(), ("a",), ("in", "e ")])))


@given(CASES)
async def test_a_stream_concatenates_to_the_whole_however_it_is_cut(
    case: tuple[list[int], list[list[int]], tuple[str, ...]],
) -> None:
    ids, pieces, stops = case
    turn = Turn(OFFERED, SamplingParams(), stops)
    streamed = await run(fake(Script(tuple(map(tuple, pieces)))), turn, mistral())
    whole = await run(fake(Script((tuple(ids),))), turn, mistral())
    done = streamed[-1]
    assert done == whole[-1]
    assert isinstance(done, Done)
    assert "".join(event.text for event in streamed if isinstance(event, TextDelta)) == done.text
    assert "".join(event.text for event in streamed if isinstance(event, ThinkingDelta)) == done.thinking
    for i, told in enumerate(done.tool_calls):
        first, *rest = [event for event in streamed if isinstance(event, ToolCallDelta) and event.index == i]
        assert first == ToolCallDelta(i, told.name, id=told.id)
        assert not any(delta.name or delta.id for delta in rest)
        assert "".join(delta.arguments for delta in rest) == told.arguments
