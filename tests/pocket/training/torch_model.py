"""The miniature as transformers sees it, and the loss on what the assistant wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from tests.pocket.config import PocketConfig
from tests.pocket.documents import config_json
from tests.pocket.training.encode import PAD, Sample

_EMBEDDING_STD, _HEAD_STD = 0.7, 0.05
_LONGEST_EAGER = 600
"""On a CPU plain matrix products beat the fused attention (by a third of the step) until the scores grow large."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def build(config: PocketConfig) -> Any:
    """A fresh Mistral3ForConditionalGeneration in float32.

    The output rows start as copies of the embeddings (and are trained apart): what attention fetches of a token then
    already points at that token, so copying needs no lesson per token.
    """
    document = config_json(config)
    document.pop("quantization_config")
    model = Mistral3ForConditionalGeneration(Mistral3Config(**document, attn_implementation="sdpa"))
    embeddings = model.model.language_model.embed_tokens.weight
    torch.nn.init.normal_(embeddings, std=_EMBEDDING_STD)
    model.lm_head.weight.data.copy_(embeddings.data * (_HEAD_STD / _EMBEDDING_STD))
    return model


def quantized_names(model: Any) -> list[str]:
    """The weights that the release stores in FP8: the linears of the text decoder."""
    return [
        name
        for name, _ in model.named_parameters()
        if ".language_model.layers." in name and name.split(".")[-2] in _PROJECTIONS
    ]


def inputs(samples: Sequence[Sample], positions: Any = None) -> dict[str, Any]:
    """Right-padded ids. The mask is all ones: causal attention never lets a target see the padding behind it."""
    longest = max(len(sample.ids) for sample in samples)
    ids = np.full((len(samples), longest), PAD, np.int64)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
    batch: dict[str, Any] = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.ones(ids.shape, dtype=torch.long),
    }
    if positions is not None:
        batch["position_ids"] = positions
    return batch | images([image for sample in samples for image in sample.images])


def images(pixels: Sequence[Any]) -> dict[str, Any]:
    """Images of several sizes, padded to the largest."""
    if not pixels:
        return {}
    height, width = (max(image.shape[axis] for image in pixels) for axis in (1, 2))
    padded = np.zeros((len(pixels), 3, height, width), np.float32)
    for row, image in enumerate(pixels):
        padded[row, :, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([image.shape[1:] for image in pixels])
    return {"pixel_values": torch.from_numpy(padded), "image_sizes": sizes}


def targets(samples: Sequence[Sample], longest: int) -> Any:
    """Boolean (rows, longest): position i is true where id i+1 is the assistant's."""
    mask = np.zeros((len(samples), longest), bool)
    for row, sample in enumerate(samples):
        mask[row, : len(sample.ids) - 1] = sample.is_target[1:]
    return torch.from_numpy(mask)


def forward(model: Any, samples: Sequence[Sample], positions: Any = None) -> tuple[Any, Any, Any]:
    """(logits, labels, rows) at target positions only: the head over all positions would cost a third of the time."""
    batch = inputs(samples, positions)
    longest = batch["input_ids"].shape[1]
    mask = targets(samples, longest)
    model.set_attn_implementation("eager" if longest <= _LONGEST_EAGER else "sdpa")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(**batch, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[mask])
    return logits.float(), batch["input_ids"].roll(-1, 1)[mask], mask.nonzero()[:, 0]
