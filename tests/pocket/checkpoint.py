"""Puts the pieces together: OUT/hf and OUT/native, each a complete checkpoint folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.pocket.config import PocketConfig
from tests.pocket.documents import config_json, generation_config_json, model_card, params_json
from tests.pocket.native_layout import native_tensor
from tests.pocket.safetensors_file import write_shards
from tests.pocket.tekken import tekken_json
from tests.pocket.weights import generate

_COPIED = ("chat_template.jinja", "SYSTEM_PROMPT.txt")


def write_pocket(out: Path, seed: int = 0, config: PocketConfig = PocketConfig()) -> tuple[Path, Path]:  # noqa: B008
    """Write both layouts and return (OUT/hf, OUT/native). Existing files of the same names are replaced."""
    hf, native = out / "hf", out / "native"
    tokenizer = json.dumps(tekken_json(config), ensure_ascii=False)
    for folder in (hf, native):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tekken.json").write_text(tokenizer, "utf-8")
        (folder / "README.md").write_text(model_card(config), "utf-8")
        for name in _COPIED:
            shutil.copyfile(Path(__file__).with_name(name), folder / name)
    _write_json(hf / "config.json", config_json(config))
    _write_json(hf / "generation_config.json", generation_config_json())
    _write_json(native / "params.json", params_json(config))
    tensors = list(generate(config, seed))
    write_shards(hf, "model", "model.safetensors.index.json", tensors, config.num_hf_shards)
    natives = [native_tensor(tensor, config) for tensor in tensors]
    write_shards(native, "consolidated", "consolidated.safetensors.index.json", natives, config.num_native_shards)
    return hf, native


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
