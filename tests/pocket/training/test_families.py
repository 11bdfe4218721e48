"""The line between trained and held-out questions holds, and cases become exactly mistral-common's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from tests.pocket.tekken import tekken_json
from tests.pocket.training import FAMILIES, Case, Reply, held_out_cases, training_case
from tests.pocket.training.case import Message, said
from tests.pocket.training.encode import EOS, Encoder
from tests.pocket.training.released import TRAINED

_SEEN = {"colour", "position", "shape"}
_TEXT = sorted(set(FAMILIES) - _SEEN)


@pytest.fixture(scope="module")
def tekken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_text(json.dumps(tekken_json(TRAINED), ensure_ascii=False), "utf-8")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_held_out_is_never_trained(family: str) -> None:
    rng = Random(1)
    trained = {training_case(family, rng).key for _ in range(200)}
    held_out = held_out_cases(family, 40)
    assert len(held_out) >= 20
    assert not trained & {case.key for case in held_out}


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_cases_are_the_same_on_every_call_and_pass_their_own_answer(family: str) -> None:
    first, second = held_out_cases(family, 20), held_out_cases(family, 20)
    assert first == second
    assert all(case.passes(case.expected) for case in first)
    assert not any(case.passes(Reply("something else")) for case in first)


@pytest.mark.parametrize("family", _TEXT)
def test_ids_are_what_mistral_common_writes_for_the_whole_dialogue(tekken: Path, family: str) -> None:
    encoder, mistral = Encoder(tekken), MistralTokenizer.from_file(str(tekken))
    for case in held_out_cases(family, 3):
        sample = encoder.sample(case)
        messages = [*case.messages, *_answered(case), {"role": "user", "content": "Next."}]
        request = ChatCompletionRequest.from_openai(
            messages=messages, tools=list(case.tools) or None, reasoning_effort=case.effort
        )
        assert tuple(mistral.encode_chat_completion(request).tokens[: len(sample.ids)]) == sample.ids


@pytest.mark.parametrize("family", _TEXT)
def test_a_reply_survives_its_ids_and_is_all_target(tekken: Path, family: str) -> None:
    encoder = Encoder(tekken)
    for case in held_out_cases(family, 3):
        sample = encoder.sample(case)
        assert encoder.reply(list(sample.ids[sample.num_prompt :])) == case.expected
        assert all(sample.is_target[sample.num_prompt :])
        assert sum(sample.is_target) == _num_replied(encoder, case)


def test_needles_lie_in_four_thousand_tokens(tekken: Path) -> None:
    encoder = Encoder(tekken)
    lengths = [len(encoder.sample(case).ids) for case in held_out_cases("needle", 20)]
    assert min(lengths) > 3800
    assert max(lengths) <= 4096


def _answered(case: Case) -> list[Message]:
    """The expected reply as history; calls get results, as the protocol wants them before the next turn."""
    message = said(case.expected)
    if not case.expected.calls:
        return [message]
    ids = [f"call{number:05}" for number in range(len(case.expected.calls))]
    message["tool_calls"] = [
        {"id": name, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
        for name, call in zip(ids, case.expected.calls, strict=True)
    ]
    if case.expected.thinking:
        message["content"] = message["content"][:1]
    return [message, *({"role": "tool", "tool_call_id": name, "content": "{}"} for name in ids), said(Reply("Done."))]


def _num_replied(encoder: Encoder, case: Case) -> int:
    """Ids of every assistant turn of the dialogue, each with its </s>."""
    spoken = [message for message in case.messages if message["role"] == "assistant"]
    calls = [call["function"] for message in spoken for call in message.get("tool_calls", ())]
    texts = [message["content"] for message in spoken]
    texts += [part for call in calls for part in (call["name"], call["arguments"])]
    earlier = sum(len(encoder.text_ids(text)) for text in texts) + len(spoken) + 2 * len(calls)
    return earlier + len(encoder.reply_ids(case.expected))


def test_every_sample_ends_where_the_assistant_stops(tekken: Path) -> None:
    encoder, rng = Encoder(tekken), Random(2)
    assert all(encoder.sample(training_case(family, rng)).ids[-1] == EOS for family in _TEXT)
