"""Known mistakes in published files of this family, seen in the header and cured at load by overriding the key.

The YaRN key: files made before 2026-05-02 carry yarn_log_multiplier 1.0, which halves the attention logits: fine for
some hundred tokens, then loops. The weights are right. Ministral 3 has 1.0 rightly, and a temperature scale beside it.
The pre-type: files made through the Hugging Face path say pixtral, which llama.cpp splits like Llama 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm35local.models.gguf_header import GgufHeader

_ARCHITECTURE = "mistral3"
_YARN = f"{_ARCHITECTURE}.rope.scaling.yarn_log_multiplier"
_YARN_FACTOR = f"{_ARCHITECTURE}.rope.scaling.factor"
_TEMPERATURE = f"{_ARCHITECTURE}.attention.temperature_scale"
_PRE = "tokenizer.ggml.pre"
_MEDIUM_YARN_FACTOR = 64.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`key` holds `found` where `right` belongs."""

    key: str
    found: float | str
    right: float | str
    effect: str

    def __str__(self) -> str:
        return f"{self.key} is {self.found}, corrected to {self.right} while loading: {self.effect}"


def find_faults(header: GgufHeader) -> tuple[Fault, ...]:
    """The faults of this file; empty for a right one and for other architectures."""
    if header.architecture != _ARCHITECTURE:
        return ()
    metadata, faults = header.metadata, []
    yarn = metadata.get(_YARN, 0.0)
    if yarn and metadata.get(_YARN_FACTOR) == _MEDIUM_YARN_FACTOR and not metadata.get(_TEMPERATURE):
        faults.append(Fault(_YARN, float(yarn), 0.0, "as it is, long answers turn to gibberish"))
    if metadata.get(_PRE) == "pixtral":
        faults.append(Fault(_PRE, "pixtral", "tekken", "as it is, some texts become other tokens than in training"))
    return tuple(faults)
