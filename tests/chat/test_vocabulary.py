from __future__ import annotations

import pytest

from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError
from tests.fakes.metadata import NUM_CHATML_CONTROLS, chatml_metadata


def test_every_byte_has_its_token() -> None:
    vocabulary = Vocabulary.from_metadata(chatml_metadata(), "x.gguf")
    spelt = [vocabulary.token_bytes(NUM_CHATML_CONTROLS + byte) for byte in range(256)]
    assert spelt == [bytes((byte,)) for byte in range(256)]


def test_control_tokens_and_strange_ids_are_no_text() -> None:
    vocabulary = Vocabulary.from_metadata(chatml_metadata(), "x.gguf")
    assert [vocabulary.token_bytes(id_) for id_ in (0, 1, 2, 3, -1, 10_000)] == [b""] * 6
    assert vocabulary.controls["<|im_end|>"] == 2


def test_sentencepiece_spaces_and_bytes() -> None:
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<0x0A>", "▁Hi", "é", "<tag>", "unused"],
        "tokenizer.ggml.token_type": [2, 3, 3, 6, 1, 1, 4, 5],
    }
    vocabulary = Vocabulary.from_metadata(metadata, "x.gguf")
    assert [vocabulary.token_bytes(id_) for id_ in range(8)] == [
        *(b"", b"", b""),
        *(b"\n", b" Hi", "é".encode(), b"<tag>"),
        b"",
    ]


def test_the_end_of_a_turn_is_control_even_where_the_file_says_otherwise() -> None:
    metadata = chatml_metadata()
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, list)
    types[2] = 1  # <|im_end|>
    types[3] = 4  # <s>, which bos_token_id names
    vocabulary = Vocabulary.from_metadata(metadata, "x.gguf")
    assert {2, 3} <= vocabulary.control_ids
    assert vocabulary.token_bytes(2) == b""


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "bert", "'bert'"),
        ("tokenizer.ggml.tokens", None, "no list under tokenizer.ggml.tokens"),
        ("tokenizer.ggml.token_type", [1, 2], "260 tokens but 2 token types"),
    ],
)
def test_a_damaged_header_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        Vocabulary.from_metadata(chatml_metadata(**{key: value}), "x.gguf")
