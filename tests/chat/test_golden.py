"""Prompts that were rendered once by the references (mistral-common; the file's template by plain jinja2 and
llama.cpp's tokenizer), kept in tests/golden and compared token for token."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mm35local.chat.answer import Answer, merged
from mm35local.chat.deltas import Delta
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.scores import Scores
from mm35local.models.gguf_header import read_header
from tests.chat import wire
from tests.fakes.metadata import mistral_metadata

GOLDEN = Path(__file__).parents[1] / "golden"


def cases(name: str) -> list[Any]:
    rows: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text("utf-8"))
    return [pytest.param(row, id=f"{row['name']} {row.get('effort', '')}".strip()) for row in rows]


def conversation(row: dict[str, Any]) -> Conversation:
    messages = (Message(Role(m["role"]), m["content"], m.get("thinking", "")) for m in row["messages"])
    return Conversation(tuple(messages), datetime(2026, 1, 1, tzinfo=UTC), Effort(row.get("effort", "none")))


@cache
def mistral() -> Dialect:
    return load_dialect(mistral_metadata(), "pocket.gguf")


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Dialect:
    return load_dialect(read_header(smollm2_path).metadata, smollm2_path.name)


@pytest.mark.parametrize("row", cases("mistral.json"))
def test_mistral(row: dict[str, Any]) -> None:
    assert list(mistral().render(conversation(row))) == row["tokens"]


@pytest.mark.parametrize("row", cases("smollm2.json"))
def test_smollm2(row: dict[str, Any], smollm2: Dialect) -> None:
    spelling = {1: "<|im_start|>", 2: "<|im_end|>"}
    parts = smollm2.render(conversation(row))
    assert "".join(spelling[part] if isinstance(part, int) else part for part in parts) == row["text"]
    assert [part for part in parts if isinstance(part, int)] == [id_ for id_ in row["tokens"] if id_ in spelling]


def histories() -> list[Any]:
    found = json.loads((GOLDEN / "histories.json").read_text("utf-8"))
    rows = [{**row, "tools": found["tools"] if row.get("tools") else []} for row in found["rows"]]
    return [pytest.param(row, id=f"{row['name']} {row['effort']}") for row in rows]


@pytest.mark.parametrize("row", histories())
def test_any_shape_of_history(row: dict[str, Any]) -> None:
    """`normal` was read over by hand; `tokens` are mistral-common's for it, with the tekken.json itself."""
    messages = tuple(map(wire.message, row["messages"]))
    assert [wire.as_wire(message) for message in normalize(messages).messages] == row["normal"]
    tools = tuple(map(wire.tool, row["tools"]))
    asked = Conversation(messages, datetime(2026, 1, 1, tzinfo=UTC), Effort(row["effort"]), tools)
    assert list(mistral().render(asked)) == row["tokens"]


def answers() -> list[tuple[int, ...]]:
    """What assistants said in the golden histories, as the reference encodes it: each up to its end token."""
    rows: list[Any] = [param.values[0] for param in histories()]
    return sorted({tuple(piece) for row in rows for piece in _between(row["tokens"])})


def _between(tokens: list[int]) -> list[list[int]]:
    """From each [/INST] or [/TOOL_RESULTS] to the next </s>."""
    starts = [i + 1 for i, id_ in enumerate(tokens) if id_ in (4, 8)]
    ends = [next((i for i in range(start, len(tokens)) if tokens[i] == 2), start) for start in starts]
    return [tokens[start:end] for start, end in zip(starts, ends, strict=True) if tokens[start : start + 1] != [7]]


def test_a_recorded_answer_cut_anywhere_gives_the_same_deltas() -> None:
    recorded = [ids for ids in answers() if ids]
    assert len(recorded) >= 20
    assert sum(9 in ids for ids in recorded) > 8
    assert sum(34 in ids for ids in recorded) > 2
    for ids in recorded:
        whole = heard([ids])
        assert whole == heard([(id_,) for id_ in ids])
        assert all(heard([ids[:i], ids[i:]]) == whole for i in range(len(ids)))


def heard(pieces: list[tuple[int, ...]]) -> tuple[list[Delta], tuple[str, ...], int]:
    answer = Answer(mistral().parser(), mistral().vocabulary, (), ("get_weather", "answer"), (1, 2))
    deltas = [delta for piece in pieces for delta in answer.feed(piece) if not isinstance(delta, Scores)]
    return merged([*deltas, *answer.flush(is_cut=False)]), answer.warnings, answer.num_thinking_tokens
