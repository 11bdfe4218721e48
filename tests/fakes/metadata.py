"""GGUF metadata small enough to read: a byte-level vocabulary with a ChatML template, and Mistral's v15."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tests.pocket.config import PocketConfig
from tests.pocket.tekken import tekken_json

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>")
NUM_CHATML_CONTROLS = len(CHATML_CONTROLS)


def byte_letters() -> list[str]:
    """GPT-2's letter of each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def chatml_metadata(template: str = CHATML, /, **more: object) -> dict[str, object]:
    """Four control tokens, then one token a byte: text tokenizes to its bytes + NUM_CHATML_CONTROLS."""
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*CHATML_CONTROLS, *byte_letters()],
        "tokenizer.ggml.token_type": [3] * NUM_CHATML_CONTROLS + [1] * 256,
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template,
        **more,
    }


def chatml_ids(text: str) -> list[int]:
    """What a worker with this vocabulary makes of a text."""
    return [byte + NUM_CHATML_CONTROLS for byte in text.encode()]


@lru_cache(maxsize=1)
def mistral_tekken() -> Mapping[str, Any]:
    """The miniature's tekken.json."""
    return tekken_json(PocketConfig())


def mistral_metadata() -> dict[str, object]:
    """The same vocabulary as a converter writes it into a GGUF."""
    tekken, letters = mistral_tekken(), byte_letters()
    specials = [token["token_str"] for token in tekken["special_tokens"]]
    pairs = ["".join(letters[byte] for byte in base64.b64decode(entry["token_bytes"])) for entry in tekken["vocab"]]
    return {
        "general.architecture": "mistral3",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": [*specials, *pairs],
        "tokenizer.ggml.token_type": [3] * len(specials) + [1] * len(pairs),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }


def mistral_tekken_text() -> str:
    return json.dumps(mistral_tekken())
