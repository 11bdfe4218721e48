"""The trained miniature sees through `mm35 serve`: the `openai` client, images again and other ones, both at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.serving import Server, free_port, mm35, serving
from tests.fakes.pictures import data_url, png
from tests.pocket.training.case import Case
from tests.pocket.training.families import held_out_cases

QUESTION = "What colour is this?"
RED, BLUE = (220, 30, 30), (30, 30, 220)


@pytest.fixture(scope="module")
def server(seeing_gguf: Path) -> Iterator[Server]:
    with serving("--model", str(seeing_gguf), "--ctx", "8192", log=seeing_gguf.with_suffix(".log")) as server:
        yield server


def messages(colour: tuple[int, int, int], question: str = QUESTION, size: tuple[int, int] = (112, 112)) -> Any:
    image = {"type": "image_url", "image_url": {"url": data_url(png(*size, colour))}}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


def ask(server: Server, given: Any) -> tuple[str, int, int]:
    """The answer, and how many tokens of the prompt were cached, of how many."""
    answer = server.client.chat.completions.create(model="any", messages=given, temperature=0, max_tokens=32)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    cached = answer.usage.prompt_tokens_details.cached_tokens or 0
    return answer.choices[0].message.content or "", cached, answer.usage.prompt_tokens


def ask_streamed(server: Server, given: Any) -> str:
    stream = server.client.chat.completions.create(
        model="any", messages=given, temperature=0, max_tokens=32, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_the_same_image_is_cached_and_another_of_its_size_is_not(server: Server) -> None:
    first, _, num_tokens = ask(server, messages(RED))
    again, num_cached, _ = ask(server, messages(RED))
    assert (first, again) == ("red", "red")
    assert num_cached == num_tokens
    other, num_cached_of_other, _ = ask(server, messages(BLUE))
    assert other == "blue"
    assert num_cached_of_other < num_tokens - 4 * 5, "none of the image's 20 tokens"


def test_a_stream_says_the_same(server: Server) -> None:
    for colour, name in ((RED, "red"), (BLUE, "blue")):
        assert ask_streamed(server, messages(colour)) == name


@pytest.mark.parametrize(("size", "num_cells"), [((28, 28), 2), ((56, 28), 3), ((1540, 28), 56), ((2000, 1000), 1568)])
def test_prompts_count_as_many_tokens_as_mistral_common_gives_an_image(
    server: Server, size: tuple[int, int], num_cells: int
) -> None:
    _, _, with_image = ask(server, messages(RED, size=size))
    _, _, without = ask(server, [{"role": "user", "content": QUESTION}])
    assert with_image - without == num_cells


def test_many_at_once_each_see_their_own(server: Server) -> None:
    cases = [case for family in ("colour", "position") for case in held_out_cases(family, 12)]

    def answer(case: Case) -> str:
        return ask(server, list(case.messages))[0]

    with ThreadPoolExecutor(8) as pool:
        answers: Sequence[str] = list(pool.map(answer, cases))
    right = sum(answer.strip() == case.expected.text for answer, case in zip(answers, cases, strict=True))
    assert right >= len(cases) - 1, list(zip(answers, (case.expected.text for case in cases), strict=True))


def test_two_images_in_one_turn(server: Server) -> None:
    red, blue = messages(RED)[0]["content"][0], messages(BLUE)[0]["content"][0]
    given = [
        {"role": "user", "content": [red, {"type": "text", "text": " "}, blue, {"type": "text", "text": QUESTION}]}
    ]
    text, _, num_tokens = ask(server, given)
    assert text
    assert num_tokens > 2 * 20


def test_without_the_vision_part_images_are_refused(seeing_gguf: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind.gguf"
    blind.symlink_to(seeing_gguf)
    with serving("--model", str(blind), "--ctx", "1024", log=tmp_path / "log") as server:
        body = {"messages": messages(RED)}
        answer = httpx.post(f"{server.url}/chat/completions", json=body, timeout=30)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "no_vision"


def test_another_models_vision_part_is_refused_by_name(seeing_gguf: Path, smollm2_path: Path) -> None:
    mmproj = next(seeing_gguf.parent.glob("*mmproj*.gguf"))
    for model, vision in ((smollm2_path, mmproj), (seeing_gguf, seeing_gguf)):
        done = mm35("serve", "--port", str(free_port()), "--model", str(model), "--mmproj", str(vision))
        assert done.returncode == 1
        assert "name the mmproj file that was made with the model" in done.stderr
