"""The trained weights as a release: FP8 with static scales in the decoder's linears, BF16 elsewhere, HF names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantize.fp8 import scaled_table
from tests.pocket.config import PocketConfig
from tests.pocket.documents import config_json, generation_config_json, params_json
from tests.pocket.fp8 import encode, to_bf16
from tests.pocket.safetensors_file import write_shards
from tests.pocket.tekken import tekken_json
from tests.pocket.training.released import read_tensors
from tests.pocket.training.torch_model import build, quantized_names
from tests.pocket.weights import Tensor

_COPIED = ("chat_template.jinja", "SYSTEM_PROMPT.txt")
_LARGEST_E4M3 = 448.0


def write_release(model: Any, peaks: dict[str, float], config: PocketConfig, out: Path) -> None:
    """`peaks` has the largest absolute input of each quantized linear, for its activation scale."""
    out.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": config_json(config),
        "generation_config.json": generation_config_json(),
        "params.json": params_json(config),
    }
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    (out / "tekken.json").write_text(json.dumps(tekken_json(config), ensure_ascii=False), "utf-8")
    for name in _COPIED:
        shutil.copyfile(Path(__file__).parents[1] / name, out / name)
    tensors = list(_tensors(model, peaks))
    write_shards(out, "model", "model.safetensors.index.json", tensors, config.num_hf_shards)


def read_release(folder: Path, config: PocketConfig) -> Any:
    """The model whose weights are exactly what BF16 keeps of the released ones (FP8 times scale), in float32."""
    stored = {tensor.name: tensor.data for tensor in read_tensors(folder)}
    model = build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            data = stored[name]
            if data.dtype == np.uint8:
                scale = _widen(stored[f"{name}_scale_inv"]).item()
                data = to_bf16(scaled_table(scale)[data])
            parameter.copy_(torch.from_numpy(_widen(data)))
    return model.eval()


def activation_peaks(model: Any, forward_all: Any) -> dict[str, float]:
    """The largest absolute input of every quantized linear while `forward_all()` runs."""
    peaks: dict[str, float] = {}
    hooks = []
    for name in quantized_names(model):
        module = name.removesuffix(".weight")

        def note(_: Any, arguments: tuple[Any, ...], module: str = module) -> None:
            peaks[module] = max(peaks.get(module, 0.0), arguments[0].detach().abs().max().item())

        hooks.append(model.get_submodule(module).register_forward_pre_hook(note))
    forward_all()
    for hook in hooks:
        hook.remove()
    return peaks


def _tensors(model: Any, peaks: dict[str, float]) -> Iterator[Tensor]:
    quantized = set(quantized_names(model))
    for name, parameter in model.named_parameters():
        values = parameter.detach().float().numpy()
        if name not in quantized:
            yield Tensor(name, to_bf16(values))
            continue
        module = name.removesuffix(".weight")
        codes, scale = encode(values)
        yield Tensor(name, codes)
        yield Tensor(f"{module}.weight_scale_inv", _scalar(scale))
        yield Tensor(f"{module}.activation_scale", _scalar(peaks[module] / _LARGEST_E4M3))


def _scalar(value: float | np.float32) -> Any:
    return to_bf16(np.array([value], np.float32)).reshape(())


def _widen(bits: Any) -> Any:
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)
