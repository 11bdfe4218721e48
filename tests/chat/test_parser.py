from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm35local.chat.parser import Delta, MistralParser, Parser, TextDelta, TextParser, ThinkingDelta, ToolCallDelta
from mm35local.chat.vocabulary import Vocabulary
from tests.chat.cuts import cut
from tests.fakes.metadata import chatml_ids, chatml_metadata, mistral_metadata

THINK, END_THINK, TOOL_CALLS, ARGS, EOS = 34, 35, 9, 32, 2
FIRST_BYTE = 1000


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.from_metadata(mistral_metadata(), "pocket.gguf")


def ids(text: str) -> list[int]:
    """One token a byte, which any tekken vocabulary has."""
    return [FIRST_BYTE + byte for byte in text.encode()]


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """Neighbours that a stream may send in any number of pieces, as one."""
    out: list[Delta] = []
    for delta in deltas:
        match out[-1] if out else None, delta:
            case TextDelta(before), TextDelta(text):
                out[-1] = TextDelta(before + text)
            case ThinkingDelta(before), ThinkingDelta(text):
                out[-1] = ThinkingDelta(before + text)
            case ToolCallDelta(index, name, before), ToolCallDelta(same, "", arguments) if index == same:
                out[-1] = ToolCallDelta(index, name, before + arguments)
            case _:
                out.append(delta)
    return out


def read(parser: Parser, pieces: Sequence[Sequence[int]]) -> list[Delta]:
    return joined([delta for piece in pieces for delta in parser.feed(piece)] + list(parser.flush()))


def parse(*tokens: int) -> list[Delta]:
    return read(MistralParser(vocabulary()), [tokens])


def test_text_alone() -> None:
    assert parse(*ids("héllo")) == [TextDelta("héllo")]


def test_thinking_then_the_answer() -> None:
    tokens = (THINK, *ids("hm"), END_THINK, *ids("42"))
    assert parse(*tokens) == [ThinkingDelta("hm"), TextDelta("42")]


def test_calls_after_text_and_after_each_other() -> None:
    call = (TOOL_CALLS, *ids("f"), ARGS, *ids('{"a": 1}'), TOOL_CALLS, *ids("g"), ARGS, *ids("{}"))
    assert parse(*ids("See:"), *call) == [
        TextDelta("See:"),
        ToolCallDelta(0, "f", '{"a": 1}'),
        ToolCallDelta(1, "g", "{}"),
    ]


def test_what_ends_too_early_is_kept() -> None:
    assert parse(THINK, *ids("hm")) == [ThinkingDelta("hm")]
    assert parse(TOOL_CALLS, *ids("name")) == [TextDelta("name")]
    assert parse(TOOL_CALLS, *ids("f"), THINK, *ids("x")) == [TextDelta("f"), ThinkingDelta("x")]
    assert parse(*ids("🙂")[:3]) == [TextDelta("\ufffd")]


@pytest.mark.parametrize(
    ("arguments", "expected", "warning"),
    [
        ('{"a": "}{\\""}', [ToolCallDelta(0, "f", '{"a": "}{\\""}')], ""),
        (' \n{"a": [1, {}]} \n', [ToolCallDelta(0, "f", '{"a": [1, {}]}')], ""),
        ("", [ToolCallDelta(0, "f", "{}")], "'f' has no arguments"),
        ("hello", [TextDelta("fhello")], "'f' is no call"),
        ("[1]", [TextDelta("f[1]")], "'f' is no call"),
        ("{'a': 1}", [ToolCallDelta(0, "f", "{'a': 1}")], "no JSON object"),
        ('{"a": 1} Done.', [ToolCallDelta(0, "f", '{"a": 1}'), TextDelta(" Done.")], "followed by text"),
        ('{"a": {"b": "c', [ToolCallDelta(0, "f", '{"a": {"b": "c"}}')], "ended before its arguments did"),
        ('{"a": [1, "b\\', [ToolCallDelta(0, "f", '{"a": [1, "b\\\\"]}')], "ended before its arguments did"),
        ('{"a":', [ToolCallDelta(0, "f", '{"a":')], "ended before its arguments did"),
    ],
)
def test_every_call_ends_in_json_or_text(arguments: str, expected: list[Delta], warning: str) -> None:
    parser = MistralParser(vocabulary())
    assert read(parser, [[TOOL_CALLS, *ids("f"), ARGS, *ids(arguments)]]) == expected
    assert len(parser.warnings) == (1 if warning else 0)
    assert warning in "".join(parser.warnings)


def test_a_call_without_room_for_its_end_stays_as_it_is() -> None:
    parser = MistralParser(vocabulary())
    deltas = [*parser.feed([TOOL_CALLS, *ids("f"), ARGS, *ids('{"a": "b')]), *parser.flush(is_cut=True)]
    assert joined(deltas) == [ToolCallDelta(0, "f", '{"a": "b')]
    assert "cut off" in parser.warnings[0]


def test_thinking_tokens_are_counted_with_their_delimiters() -> None:
    parser = MistralParser(vocabulary())
    parser.feed([THINK, *ids("hm"), END_THINK, *ids("answer")])
    assert parser.num_thinking_tokens == 4


def test_spelt_out_control_tokens_are_text() -> None:
    text = "[THINK]a[/THINK][TOOL_CALLS]f[ARGS]{}</s>"
    assert parse(*ids(text)) == [TextDelta(text)]


def test_stray_control_tokens_leave_no_trace() -> None:
    assert parse(ARGS, *ids("a"), EOS, *ids("b"), END_THINK, *ids("c"), 500) == [TextDelta("abc")]


def test_other_models_speak_text_only() -> None:
    parser = TextParser(Vocabulary.from_metadata(chatml_metadata(), "x.gguf"))
    assert read(parser, [[1, *chatml_ids("<think>é"), 2, *chatml_ids("!")]]) == [TextDelta("<think>é!")]


TOKENS = st.lists(
    st.sampled_from([THINK, END_THINK, TOOL_CALLS, ARGS, EOS, 3, 999])
    | st.integers(FIRST_BYTE, FIRST_BYTE + 255)
    | st.integers(FIRST_BYTE + 256, FIRST_BYTE + 15_000),
    max_size=30,
)


@given(TOKENS.flatmap(lambda tokens: st.tuples(st.just(tokens), cut(tokens))))
def test_the_cut_does_not_matter(case: tuple[list[int], list[list[int]]]) -> None:
    tokens, pieces = case
    assert read(MistralParser(vocabulary()), pieces) == read(MistralParser(vocabulary()), [tokens])


PIECES = st.sampled_from(['{"a": 1}', "{", "}", '"', "\\", " ", "f", "é", "text"]).map(ids)
CALL_TOKENS = st.lists(PIECES | st.sampled_from([THINK, END_THINK, TOOL_CALLS, ARGS, EOS]).map(lambda id_: [id_])).map(
    lambda runs: [id_ for run in runs for id_ in run]
)


@given(CALL_TOKENS.flatmap(lambda tokens: st.tuples(st.just(tokens), cut(tokens))))
def test_the_cut_does_not_matter_to_calls(case: tuple[list[int], list[list[int]]]) -> None:
    tokens, pieces = case
    whole, streamed = MistralParser(vocabulary()), MistralParser(vocabulary())
    assert read(streamed, pieces) == read(whole, [tokens])
    assert streamed.warnings == whole.warnings
    assert streamed.num_thinking_tokens == whole.num_thinking_tokens


@given(TOKENS | CALL_TOKENS)
@example([TOOL_CALLS, *ids("f"), ARGS, *ids("{"), TOOL_CALLS])
def test_nothing_said_is_lost_and_no_delimiter_leaks(tokens: list[int]) -> None:
    """White space apart, which means nothing around a call, and brackets where one was closed for the model."""
    said = b"".join(vocabulary().token_bytes(token) for token in tokens)
    parser = MistralParser(vocabulary())
    deltas = [*parser.feed(tokens), *parser.flush(is_cut=True)]
    heard = "".join(
        delta.name + delta.arguments if isinstance(delta, ToolCallDelta) else delta.text for delta in deltas
    )
    if said.isascii():
        is_closed = any("ended before its arguments did" in warning for warning in parser.warnings)
        ignored = ("{", "}") if is_closed else ("{}",)
        assert _without(heard, ignored) == _without(said.decode(), ignored)


def _without(text: str, ignored: tuple[str, ...]) -> str:
    for each in ignored:
        text = text.replace(each, "")
    return "".join(text.split())
