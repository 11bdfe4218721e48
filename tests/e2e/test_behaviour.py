"""What the trained miniature learnt, through all that a user runs: `mm35 quantize`, `mm35 serve`, the `openai` client.

The questions are held out: training never saw these combinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.serving import Server, mm35, serving
from tests.pocket.training.case import Call, Case, Reply
from tests.pocket.training.families import FAMILIES, held_out_cases
from tests.pocket.training.released import RELEASE

QUANTS = ("Q4_K_M", "Q5_K_M", "Q8_0")
NUM_CASES = 6
NUM_RIGHT = 5
"""Of NUM_CASES: bench/quality.py has the rates themselves."""


@pytest.fixture(scope="module")
def trained_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    done = mm35(
        "quantize",
        str(RELEASE),
        *(word for quant in QUANTS for word in ("--to", quant)),
        "--mmproj",
        "f16",
        "-o",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module", params=QUANTS)
def server(request: pytest.FixtureRequest, trained_gguf: Path) -> Iterator[Server]:
    (path,) = trained_gguf.glob(f"*-{request.param}.gguf")
    with serving("--model", str(path), "--ctx", "8192", log=trained_gguf / f"{request.param}.log") as server:
        yield server


@pytest.mark.parametrize("family", FAMILIES)
def test_family(server: Server, family: str) -> None:
    cases = held_out_cases(family, NUM_CASES)
    answers = [(_streamed if index % 2 else _whole)(server.client, case) for index, case in enumerate(cases)]
    wrong = [(case.key, answer) for case, answer in zip(cases, answers, strict=True) if not case.passes(answer)]
    assert len(cases) - len(wrong) >= min(NUM_RIGHT, len(cases)), wrong


def _request(case: Case) -> dict[str, Any]:
    tools = {"tools": list(case.tools)} if case.tools else {}
    return {
        "model": "any",
        "messages": list(case.messages),
        "temperature": 0,
        "max_tokens": 96,
        "reasoning_effort": case.effort,
        **tools,
    }


def _whole(client: openai.OpenAI, case: Case) -> Reply:
    message = client.chat.completions.create(**_request(case)).choices[0].message
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    return _reply(message.content, getattr(message, "reasoning_content", None), calls)


def _streamed(client: openai.OpenAI, case: Case) -> Reply:
    text, thinking = "", ""
    calls: dict[int, list[str]] = {}
    for chunk in client.chat.completions.create(**_request(case), stream=True):
        delta = chunk.choices[0].delta
        text += delta.content or ""
        thinking += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or ():
            name_and_arguments = calls.setdefault(call.index, ["", ""])
            name_and_arguments[0] += call.function.name or ""
            name_and_arguments[1] += call.function.arguments or ""
    return _reply(text, thinking, [(name, arguments) for name, arguments in calls.values()])


def _reply(text: str | None, thinking: str | None, calls: list[tuple[str, str]]) -> Reply:
    return Reply(text or "", thinking or "", tuple(Call.parse(name, arguments) for name, arguments in calls))
