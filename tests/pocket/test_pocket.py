"""The miniature is what it claims to be: deterministic, accepted by mistral-common, templated like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from safetensors import safe_open

from tests.pocket import PocketConfig, write_pocket
from tests.pocket.tekken import SPECIAL_TOKENS

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'It\'s <hot> & "dry" in Málaga',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
_CALL_2 = {"id": "abcdefghj", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
_THINKING = [{"type": "thinking", "thinking": "2+2"}, {"type": "text", "text": "4"}]
_DIALOGUES: dict[str, list[dict[str, Any]]] = {
    "one question": [{"role": "user", "content": "Hi"}],
    "system and turns": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\n b"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": [{"type": "text", "text": "U2"}]},
    ],
    "tools": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [_CALL, _CALL_2]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"c": 21}'},
        {"role": "tool", "tool_call_id": "abcdefghj", "content": "R2"},
        {"role": "assistant", "content": "21 degrees."},
        {"role": "user", "content": "Thanks"},
    ],
    "thinking": [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": _THINKING},
        {"role": "user", "content": "Sure?"},
    ],
}


def test_two_runs_write_the_same_bytes_and_another_seed_does_not(pocket_checkpoint: Path, tmp_path: Path) -> None:
    write_pocket(tmp_path / "again")
    write_pocket(tmp_path / "other", seed=1)
    for path in sorted(pocket_checkpoint.rglob("*")):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(pocket_checkpoint)
            assert again.read_bytes() == path.read_bytes(), path
    shard = "hf/model-00001-of-00003.safetensors"
    assert (tmp_path / "other" / shard).read_bytes() != (pocket_checkpoint / shard).read_bytes()


@pytest.mark.parametrize("layout", ["hf", "native"])
def test_shards_are_what_the_safetensors_library_reads(pocket_checkpoint: Path, layout: str) -> None:
    folder = pocket_checkpoint / layout
    index = json.loads(next(folder.glob("*.index.json")).read_text())
    found: dict[str, str] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as shard:
            found.update((name, path.name) for name in shard.keys())  # noqa: SIM118
    assert found == index["weight_map"]
    config = PocketConfig()
    per_layer, vision = 9 + 2 * 7, 9 * config.vision_layers + 2 + 4
    assert len(found) == per_layer * config.num_layers + 3 + vision


def test_special_tokens_have_the_releases_ids(pocket_checkpoint: Path) -> None:
    tokenizer = MistralTokenizer.from_file(str(pocket_checkpoint / "hf" / "tekken.json")).instruct_tokenizer.tokenizer
    assert tokenizer.n_words == PocketConfig().n_vocab
    assert {rank: tokenizer.id_to_piece(rank) for rank in SPECIAL_TOKENS} == SPECIAL_TOKENS


@pytest.mark.parametrize("effort", ["none", "high", None])
@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize("dialogue", _DIALOGUES)
def test_template_renders_what_mistral_common_encodes(
    pocket_checkpoint: Path, dialogue: str, with_tools: bool, effort: str | None
) -> None:
    folder, messages = pocket_checkpoint / "native", _DIALOGUES[dialogue]
    tools = _TOOLS if with_tools or dialogue == "tools" else None
    tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json"))
    request = ChatCompletionRequest.from_openai(messages=messages, tools=tools, reasoning_effort=effort)
    encoded = tokenizer.encode_chat_completion(request)
    expected = tokenizer.decode(encoded.tokens, SpecialTokenPolicy.KEEP)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string((folder / "chat_template.jinja").read_text("utf-8"))
    optional = {"reasoning_effort": effort} if effort else {}
    rendered = template.render(messages=messages, tools=tools, bos_token="<s>", eos_token="</s>", **optional)
    assert rendered == expected
