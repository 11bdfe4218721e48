"""The reference side of `make oracle`: transformers' Mistral3ForConditionalGeneration in float32, from the checkpoint.

`python -m bench.oracle_reference CHECKPOINT CASE.npz OUT.npy`, in the virtual environment with torch. CASE holds `ids`
i64[n], `wanted` i64[k] (positions) and, with an image, `pixels` f32[3, height, width]; OUT gets f32[k, n_vocab].
It shares no code with the converter: FP8 is decoded by torch, names are transformers' own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

_SCALE = "_scale_inv"


def load(folder: Path) -> Any:
    """The model in float32, each FP8 weight times its scale."""
    document = json.loads((folder / "config.json").read_text("utf-8"))
    document.pop("quantization_config")
    document["dtype"] = "float32"
    model = Mistral3ForConditionalGeneration(Mistral3Config(**document, attn_implementation="sdpa"))
    stored = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in _tensors(path)}
    state = {
        name: tensor.float() * stored[name + _SCALE].float() if name + _SCALE in stored else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith((_SCALE, ".activation_scale"))
    }
    model.load_state_dict(state, strict=True)
    return model.eval()


def _tensors(path: Path) -> list[tuple[str, Any]]:
    with safe_open(path, "pt") as shard:
        return [(name, shard.get_tensor(name)) for name in shard.keys()]  # noqa: SIM118 - it is no dict


def logits(model: Any, case: Any) -> Any:
    inputs = {"input_ids": torch.from_numpy(case["ids"])[None]}
    if "pixels" in case:
        pixels = case["pixels"]
        inputs["pixel_values"] = torch.from_numpy(pixels)[None]
        inputs["image_sizes"] = torch.tensor([pixels.shape[1:]])
    with torch.inference_mode():
        hidden = model.model(**inputs, use_cache=False).last_hidden_state[0]
        return model.lm_head(hidden[torch.from_numpy(case["wanted"])]).float().numpy()


if __name__ == "__main__":
    torch.set_num_threads(2)
    checkpoint, case_file, out = map(Path, sys.argv[1:])
    np.save(out, logits(load(checkpoint), np.load(case_file)))
