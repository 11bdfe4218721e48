from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mm35local.models.faults import find_faults
from mm35local.models.gguf_header import read_header
from tests.models.gguf_bytes import Tensor, gguf, string, text

PRE, YARN = "tokenizer.ggml.pre", "mistral3.rope.scaling.yarn_log_multiplier"


def float32(key: str, value: float) -> bytes:
    return string(key) + struct.pack("<If", 6, value)


@pytest.mark.parametrize(
    ("architecture", "yarn", "factor", "temperature", "pre", "keys"),
    [
        ("mistral3", 0.0, 64.0, 0.0, "tekken", ()),
        ("mistral3", 1.0, 64.0, 0.0, "tekken", (YARN,)),
        ("mistral3", 1.0, 64.0, 0.0, "pixtral", (YARN, PRE)),
        ("mistral3", 1.0, 64.0, 0.1, "tekken", ()),
        ("mistral3", 1.0, 16.0, 0.0, "tekken", ()),
        ("mistral3", 0.0, 64.0, 0.0, "pixtral", (PRE,)),
        ("llama", 1.0, 64.0, 0.0, "pixtral", ()),
    ],
)
def test_only_the_known_mistakes(
    tmp_path: Path, architecture: str, yarn: float, factor: float, temperature: float, pre: str, keys: tuple[str, ...]
) -> None:
    values = [
        text("general.architecture", architecture),
        float32(YARN, yarn),
        float32("mistral3.rope.scaling.factor", factor),
        float32("mistral3.attention.temperature_scale", temperature),
        text(PRE, pre),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(values, [Tensor("token_embd.weight", (64, 64), 0, 0)], 64 * 64 * 4))
    faults = find_faults(read_header(path))
    assert tuple(fault.key for fault in faults) == keys
    assert all(f"{fault.key} is {fault.found}, corrected to {fault.right}" in str(fault) for fault in faults)
