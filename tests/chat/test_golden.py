"""Prompts that were rendered once by the references (mistral-common; the file's template by plain jinja2 and
llama.cpp's tokenizer), kept in tests/golden and compared token for token."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.models.gguf_header import read_header
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
