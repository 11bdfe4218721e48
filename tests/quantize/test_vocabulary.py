"""tekken.json to tokens and merges. That llama.cpp then tokenises alike is test_llama_cpp's business."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mm35local.errors import CheckpointError
from quantize.vocabulary import read_vocabulary


def _tekken(pieces: list[bytes], num_special: int = 4) -> dict[str, Any]:
    vocab = [bytes([byte]) for byte in range(256)] + pieces
    return {
        "config": {"default_vocab_size": num_special + len(vocab), "default_num_special_tokens": num_special},
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(vocab)
        ],
        "special_tokens": [{"rank": 0, "token_str": "<unk>", "is_control": True}, {"rank": 2, "token_str": "</s>"}],
    }


def _write(folder: Path, tekken: dict[str, Any]) -> Path:
    path = folder / "tekken.json"
    path.write_text(json.dumps(tekken))
    return path


def test_merges_build_each_token_from_lower_ranks(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(_write(tmp_path, _tekken([b"aa", b" a", b"aaaa", b" aa", "é".encode()])))
    assert vocabulary.merges == ["a a", "Ġ a", "aa aa", "Ġ aa", "Ã ©"]
    assert vocabulary.tokens[:4] == ["<unk>", "<SPECIAL_1>", "</s>", "<SPECIAL_3>"]
    assert vocabulary.tokens[4 + 256 :] == ["aa", "Ġa", "aaaa", "Ġaa", "Ã©"]
    assert vocabulary.token_types == [3] * 4 + [1] * 261


def test_a_token_that_joining_never_reaches_has_no_merge(tmp_path: Path) -> None:
    assert read_vocabulary(_write(tmp_path, _tekken([b"abc", b"ab"]))).merges == ["a b"]


def test_the_byte_alphabet_is_one_to_one(tmp_path: Path) -> None:
    tokens = read_vocabulary(_write(tmp_path, _tekken([]))).tokens[4:]
    assert len(set(tokens)) == 256
    assert all(len(token) == 1 and token.isprintable() and not token.isspace() for token in tokens)


def test_only_the_configured_part_of_the_vocabulary_counts(tmp_path: Path) -> None:
    tekken = _tekken([b"aa", b"bb"])
    tekken["config"]["default_vocab_size"] -= 1
    assert read_vocabulary(_write(tmp_path, tekken)).merges == ["a a"]


def _wrong() -> dict[str, dict[str, Any]]:
    cases = {name: _tekken([b"aa"]) for name in ("rank", "base64", "bytes", "size", "special rank", "special text")}
    cases["rank"]["vocab"][256]["rank"] = 7
    cases["base64"]["vocab"][256]["token_bytes"] = "a"
    cases["bytes"]["vocab"][65]["token_bytes"] = base64.b64encode(b"B").decode()
    cases["size"]["config"]["default_vocab_size"] = 1 << 40
    cases["special rank"]["special_tokens"][0]["rank"] = 4
    cases["special text"]["special_tokens"][0]["token_str"] = "</s>"
    cases["no config"] = {}
    cases["same bytes"] = _tekken([b"aa", b"aa"])
    return cases


@pytest.mark.parametrize("case", _wrong())
def test_damage_is_refused(tmp_path: Path, case: str) -> None:
    path = _write(tmp_path, _wrong()[case])
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(path)
    assert caught.value.file == str(path)
