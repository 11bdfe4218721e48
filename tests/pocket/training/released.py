"""Reads a committed release back, and derives Mistral's own layout from it, without torch.

`python -m tests.pocket.training.released RELEASE OUT` writes OUT with params.json and consolidated shards.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.pocket.config import PocketConfig
from tests.pocket.native_layout import native_tensor
from tests.pocket.safetensors_file import write_shards
from tests.pocket.weights import Tensor

TRAINED = PocketConfig(num_ranks=7192)
"""The trained miniature has the smaller vocabulary: 8,192 ids keep the committed files small."""
RELEASE = Path(__file__).parents[1] / "trained"
"""The committed checkpoint, HF layout."""
_SHARED = ("params.json", "tekken.json", "chat_template.jinja", "SYSTEM_PROMPT.txt", "README.md")


def read_tensors(folder: Path) -> Iterator[Tensor]:
    """What `write_shards` wrote, bit for bit."""
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.read_bytes()
        start = 8 + int.from_bytes(blob[:8], "little")
        for name, entry in json.loads(blob[8:start]).items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            kind = np.uint8 if entry["dtype"] == "F8_E4M3" else np.uint16
            yield Tensor(name, np.frombuffer(blob[start + first : start + last], kind).reshape(entry["shape"]))


def write_native(release: Path, out: Path, config: PocketConfig = TRAINED) -> Path:
    """The same weights in Mistral's own layout: other names, q/k rows interleaved. Returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in _SHARED:
        shutil.copyfile(release / name, out / name)
    tensors = [native_tensor(tensor, config) for tensor in read_tensors(release)]
    write_shards(out, "consolidated", "consolidated.safetensors.index.json", tensors, config.num_native_shards)
    return out


def write_renamed(release: Path, out: Path, config: PocketConfig = TRAINED) -> Path:
    """The HF layout with the scale names that re-uploads use: weight_scale and input_scale. Returns `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (*_SHARED, "config.json", "generation_config.json"):
        shutil.copyfile(release / name, out / name)
    tensors = [Tensor(_renamed(tensor.name), tensor.data) for tensor in read_tensors(release)]
    write_shards(out, "model", "model.safetensors.index.json", tensors, config.num_hf_shards)
    return out


def _renamed(name: str) -> str:
    return name.replace(".weight_scale_inv", ".weight_scale").replace(".activation_scale", ".input_scale")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pocket.training.released", description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    print(write_native(arguments.release, arguments.out))


if __name__ == "__main__":
    main()
